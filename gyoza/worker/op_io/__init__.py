"""What crosses the border between the worker and an op's container: inputs, outputs, their folder.

Everything here blocks on files: callers run it in a thread.
"""

from gyoza.worker.op_io.inputs import InputsInvalid, write_inputs
from gyoza.worker.op_io.op_dir import (
    INPUT_JSON,
    INPUT_PICKLE,
    OUTPUT,
    make_op_dir,
    mounted_dir,
    remove_op_dir,
)
from gyoza.worker.op_io.outputs import read_outputs
from gyoza.worker.op_io.plain_data import Limits

__all__ = [
    "INPUT_JSON",
    "INPUT_PICKLE",
    "OUTPUT",
    "InputsInvalid",
    "Limits",
    "make_op_dir",
    "mounted_dir",
    "read_outputs",
    "remove_op_dir",
    "write_inputs",
]
