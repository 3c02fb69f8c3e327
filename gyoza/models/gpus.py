"""Which GPUs a run gets: one rule for the server's accounting and the worker's hand-out."""

from collections.abc import Collection, Mapping

MIG_TAG = "mig"
"""Tag of a part of a GPU (an NVIDIA MIG instance): a program can use one of them and nothing else
besides, so that it is handed out alone."""


def pick_gpus(
    free: Mapping[int, int], vram_mb: int, alone: Collection[int] = ()
) -> list[int] | None:
    """Choose GPUs that together have `vram_mb`.

    The smallest single GPU that is large enough, else as few of the largest as it takes.

    Args:
        free: VRAM in MB by id of the GPUs nobody holds.
        vram_mb: What the run asks for, in MB; 0 asks for no GPU.
        alone: Ids of those that can be used alone only, see `MIG_TAG`.

    Returns:
        The chosen ids, sorted; `[]` if none is asked for; None if the free ones do not suffice.
    """
    if vram_mb <= 0:
        return []
    fitting = [gpu for gpu in free if free[gpu] >= vram_mb]
    if fitting:
        return [min(fitting, key=lambda gpu: (free[gpu], gpu))]
    chosen: list[int] = []
    for gpu in sorted(free.keys() - alone, key=lambda gpu: (-free[gpu], gpu)):
        chosen.append(gpu)
        vram_mb -= free[gpu]
        if vram_mb <= 0:
            return sorted(chosen)
    return None
