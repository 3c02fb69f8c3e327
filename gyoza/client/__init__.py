"""The client of the server; see `GyozaClient`."""
