"""The variables by which container runtimes hand out devices; nobody but the worker sets them.

Where such a runtime is the engine's default, what an image or a run sets would show all GPUs to it.
"""

import re
from collections.abc import Mapping, Sequence

VISIBLE = "NVIDIA_VISIBLE_DEVICES"

# Besides the GPUs these ask the NVIDIA runtime for devices that GPUs come with, InfiniBand and the
# management of MIG among them. It looks at them only where it gives a GPU.
EXTRAS = (
    "NVIDIA_GDRCOPY",
    "NVIDIA_GDS",
    "NVIDIA_IMEX_CHANNELS",
    "NVIDIA_MIG_CONFIG_DEVICES",
    "NVIDIA_MIG_MONITOR_DEVICES",
    "NVIDIA_MOFED",
    "NVIDIA_NVSWITCH",
)
# Other vendors' runtimes (AMD_, ASCEND_, HABANA_ …).
_OF_ANY_VENDOR = re.compile(r"[A-Z0-9]+_VISIBLE_DEVICES")
# Read by programs in the container alone, to use less than what is there.
_NARROWING = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def with_gpus(env: Mapping[str, str], gpus: Sequence[str]) -> dict[str, str]:
    """Return the environment with these GPUs and no others.

    Args:
        env: What the run and the worker give; whatever in it asks for devices is left out.
        gpus: Names of the GPUs.
    """
    own = {name: value for name, value in env.items() if not _asks_for_devices(name)}
    if not gpus:
        return own | {VISIBLE: "void"}
    return own | {VISIBLE: ",".join(gpus)} | dict.fromkeys(EXTRAS, "void")


def _asks_for_devices(name: str) -> bool:
    # Up to the first `=`: what the engine takes for the name.
    name = name.partition("=")[0]
    return name in EXTRAS or (_OF_ANY_VENDOR.fullmatch(name) is not None and name not in _NARROWING)
