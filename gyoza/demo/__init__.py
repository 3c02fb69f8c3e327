"""The demonstration, `python -m gyoza.demo`, and the images it and the tests run.

__main__   sentences and exit codes
program    the server, the worker and what lives between them
plan       the runs, and what must come of each
texts      the files that the ops read
ops.py     the ops in Python, op.sh the one in shell: they run in containers
board      the runs as a live table, or as lines
results    what the runs have come to, told and checked
images     builds the images without a registry
"""
