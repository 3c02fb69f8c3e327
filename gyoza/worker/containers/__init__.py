"""Container engines: the contract, and Docker behind it."""
