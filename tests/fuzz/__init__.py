"""Fuzzing: random input, guided by coverage, to whatever reads what an op or a server has written.

    python -m tests.fuzz                        every target for a fixed number of inputs
    python -m tests.fuzz pickles --seconds 600  one target for ten minutes

A target is a function that takes bytes and raises if a promise does not hold for them.
"""
