"""Lets atheris, which is guided by coverage, look for an input that breaks one target.

    python -m tests.fuzz.guided MODULE:TARGET FOLDER_FOR_INPUTS [options of libFuzzer]

The only place that knows atheris, which comes without types.
"""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import atheris

from tests.fuzz.target import Target

_atheris: Any = atheris


def main() -> None:
    """Fuzz until libFuzzer's options say so; it ends the process."""
    name, folder, *options = sys.argv[1:]
    module, _, attribute = name.partition(":")
    with _atheris.instrument_imports(include=["gyoza", "pickletools", module]):
        target: Target = getattr(import_module(module), attribute)
    for number, seed in enumerate(target.seeds):
        (Path(folder) / str(number)).write_bytes(seed)
    options.append(f"-max_len={target.longest}")
    _atheris.Setup([sys.argv[0], folder, *options], target.check)
    _atheris.Fuzz()


if __name__ == "__main__":
    main()
