"""What a hostile op, server or client tries, and what becomes of it."""
