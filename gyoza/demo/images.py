"""Builds container images with no registry and no network, from what this machine has.

An image is made of a tar archive of its root directory: the running Python with the libraries it
needs, or the host's busybox. Both serve the demo and the tests.
"""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import trio

from gyoza.worker.containers.docker_engine import DockerEngine

HASH_LABEL = "gyoza.content_hash"
LIBRARIES = "/usr/local/lib/image"
ENVIRONMENT = {"PATH": "/usr/local/bin:/bin", "LD_LIBRARY_PATH": LIBRARIES}
# What no op needs of the standard library.
LEFT_OUT = {
    "__pycache__", "dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test",
    "tests", "tkinter", "turtledemo",
}  # fmt: skip

Files = Mapping[str, bytes]


class ImageBuildError(Exception):
    """An image cannot be built here; `str()` says what to install."""


async def build_python_image(
    engine: DockerEngine,
    image: str,
    *,
    files: Files | None = None,
    command: Sequence[str] = ("python",),
) -> None:
    """Make an image of the Python that runs this program, with `gyoza.op` as module `gyoza_op`.

    Nothing is built if the engine has that very image already.

    Args:
        engine: Where the image goes.
        image: Name and tag of the image.
        files: Further files, path in the container to content.
        command: What a container runs unless it is told otherwise.
    """
    python = _interpreter()
    library = Path(sysconfig.get_path("stdlib"))
    # Of /usr/local whatever it is here, so that the image looks the same everywhere.
    inside = Path("/usr/local", library.relative_to(sysconfig.get_config_var("installed_base")))
    files = {f"{inside}/gyoza_op.py": _op_helper(), **(files or {})}

    def fill(archive: tarfile.TarFile) -> None:
        archive.add(python, "usr/local/bin/python")
        extensions = _add_library(archive, library, inside)
        _add_shared_libraries(archive, [python, *extensions])

    await _build(engine, image, [sys.version, str(python)], files, command, fill)


async def build_busybox_image(
    engine: DockerEngine,
    image: str,
    *,
    files: Files | None = None,
    command: Sequence[str] = ("sh",),
) -> None:
    """Make an image of the host's busybox: a shell and the usual small programs.

    Nothing is built if the engine has that very image already.

    Args:
        engine: Where the image goes.
        image: Name and tag of the image.
        files: Further files, path in the container to content.
        command: What a container runs unless it is told otherwise.

    Raises:
        ImageBuildError: If there is no busybox on this machine.
    """
    found = shutil.which("busybox")
    if found is None:
        raise ImageBuildError(
            "There is no busybox on this machine; install the package busybox-static."
        )
    busybox = Path(found)

    def fill(archive: tarfile.TarFile) -> None:
        archive.add(busybox.resolve(), "bin/busybox")
        for program in _output_of(found, "--list").split():
            if program != "busybox":
                _add_link(archive, f"bin/{program}", "busybox")
        _add_shared_libraries(archive, [busybox])

    version = _output_of(found).partition("\n")[0]
    await _build(engine, image, [version], files or {}, command, fill)


async def _build(
    engine: DockerEngine,
    image: str,
    origin: Iterable[str],
    files: Files,
    command: Sequence[str],
    fill: Callable[[tarfile.TarFile], None],
) -> None:
    changes = [f"ENV {name}={value}" for name, value in ENVIRONMENT.items()]
    changes.append(f"CMD {json.dumps(list(command))}")
    digests = [f"{path} {hashlib.sha256(data).hexdigest()}" for path, data in files.items()]
    content_hash = hashlib.sha256("\n".join([*origin, *changes, *digests]).encode()).hexdigest()
    former_hash = (await engine.image_labels(image)).get(HASH_LABEL)
    if former_hash == content_hash:
        return
    if former_hash is not None:
        await engine.remove_image(image)  # or it would stay, without a name

    def write(path: Path) -> None:
        with tarfile.open(path, "w", dereference=True) as archive:
            _add_directory(archive, "tmp", 0o1777)
            _add_file(archive, "etc/passwd", b"root:x:0:0:root:/tmp:/bin/sh\n")
            fill(archive)
            for name, data in files.items():
                _add_file(archive, name, data)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "root.tar")
        await trio.to_thread.run_sync(write, path)
        await engine.import_image(image, path, [*changes, f"LABEL {HASH_LABEL}={content_hash}"])


def _op_helper() -> bytes:
    spec = find_spec("gyoza.op")
    assert spec is not None
    return Path(str(spec.origin)).read_bytes()


def _interpreter() -> Path:
    return Path(os.path.realpath(sys.executable))  # not the link in a virtual environment


def _add_library(archive: tarfile.TarFile, library: Path, inside: Path) -> list[Path]:
    """Add the standard library and return its extension modules."""
    extensions: list[Path] = []
    for folder, subfolders, names in os.walk(library):
        subfolders[:] = sorted(
            name for name in subfolders if name not in LEFT_OUT and not name.startswith("config-")
        )
        for name in sorted(names):
            path = Path(folder, name)
            if path.is_file() and path.suffix in (".py", ".so"):
                archive.add(path, str(inside / path.relative_to(library)))
                if path.suffix == ".so":
                    extensions.append(path)
    return extensions


def _add_shared_libraries(archive: tarfile.TarFile, programs: list[Path]) -> None:
    """Add what the dynamic linker would load, and the linker itself where programs look for it."""
    added: set[str] = set()
    for line in _output_of("ldd", *map(str, programs)).splitlines():
        match = re.match(r"\s+(?:(\S+) => )?(/\S+) \(0x", line)
        if match and match[2] not in added:
            added.add(match[2])
            name = match[2] if match[1] is None else f"{LIBRARIES}/{match[1]}"
            archive.add(os.path.realpath(match[2]), name)


def _output_of(*command: str) -> str:
    """Return what a program prints; ldd fails for a program that needs no library."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _add_file(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name.lstrip("/"))
    entry.size, entry.mode = len(data), 0o755
    archive.addfile(entry, io.BytesIO(data))


def _add_link(archive: tarfile.TarFile, name: str, target: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = tarfile.SYMTYPE, target
    archive.addfile(entry)


def _add_directory(archive: tarfile.TarFile, name: str, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    archive.addfile(entry)
