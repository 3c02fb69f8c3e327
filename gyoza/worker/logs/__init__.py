"""The way of a container's output: demultiplexer, event parser, tail and spool."""
