"""What the server keeps: plain functions on one database, a file for each kind of thing.

Functions that write take a `Tx`, functions that only read take a `Connection`.
"""
