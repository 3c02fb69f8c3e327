"""How much of everything there may be: what the server takes and answers.

A number here bounds what one request costs everybody else. Those that are for the server alone,
such as time-outs, are in `gyoza.server.limits`.
"""

KIB = 1024
MIB = 1024 * KIB

BODY_BYTES = 16 * MIB
"""Bytes of a body that brings inputs, outputs, events or a log."""

SMALL_BODY_BYTES = 512 * KIB
"""Bytes of any other body: a definition, a heartbeat, a claim."""

BODY_FIELDS = 1_000
"""Fields of the object that a body is."""

VALUES = 1_000_000
"""Values in inputs or outputs, at any depth: numbers, texts, lists, objects, and so on."""

DEPTH = 100
"""Levels to which the values of a body may be nested."""

INPUTS = 10_000
"""Inputs of a run."""

SPEC_BYTES = MIB
"""Bytes of what a run is made with, but for its inputs."""

ARGUMENTS = 10_000
"""Arguments in a command."""

VARIABLES = 1_000
"""Variables of a run, and so its secrets."""

LEAST_RAM_MB = 6
"""Megabytes that a run can be limited to, at least: engines refuse less."""

TAGS = 100
"""Tags that a run asks for."""

WORKER_TAGS = 1_000
"""Tags of a worker, and of each of its GPUs."""

RESOURCES_BYTES = 64 * KIB
"""Bytes of what a worker tells of its hardware."""

GPUS = 1_000
"""GPUs of a worker, or instances of GPUs."""

ATTRIBUTES_BYTES = 16 * KIB
"""Bytes of the attributes that go with the events of a run: its topic repeats them for each."""

INPUT_SPECS = 1_000
"""Inputs that a definition describes."""

RUNNING_OPS = 1_000
"""Runs that a worker has at a time; a heartbeat or a claim lists no more."""

BATCH_EVENTS, BATCH_BYTES = 1_000, 2 * MIB
"""Events in one request, and their bytes."""

EVENTS, EVENTS_BYTES = 20_000, 16 * MIB
"""Events that the op of a run tells, and their bytes; a worker stops far sooner."""

PAYLOAD_BYTES = MIB
"""Bytes of one event, but for COMPLETED: its payload is the outputs."""

PAGE_BYTES = 8 * MIB
"""Bytes of a page of a list, more or less; one entry is always there."""

CLAIM_BYTES = 32 * MIB
"""Bytes of the runs that one claim gives; one is always there."""

PROGRESS_EVENTS = 1_000
"""PROGRESS events that are kept of a run; after them its percentage changes without an event."""

NEXT_PAGE = "Gyoza-Next-Page"
"""Header of a page after which there are more: what `starting_after` is to be for the next one."""

ANSWER_BYTES = 64 * MIB
"""Bytes of an answer that a client reads: a run with all that is its has fewer, a page as well."""

LOG_BYTES = 80 * MIB
"""Bytes of the log of an attempt at the server; a worker cuts it sooner."""
