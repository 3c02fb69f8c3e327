"""gyoza runs containerised functions on people's own machines."""

__version__ = "0.1.0"
