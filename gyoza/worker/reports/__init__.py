"""What a run reports to the server: its events in order, and its log text."""
