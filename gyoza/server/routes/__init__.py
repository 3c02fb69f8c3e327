"""The HTTP contract, one file for each resource."""
