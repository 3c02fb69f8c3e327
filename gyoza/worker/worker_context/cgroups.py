"""The CPU and memory limits of the cgroup this process runs in, versions 1 and 2."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class CgroupLimits:
    """What the cgroup and its ancestors allow; None where they set no limit."""

    cpus: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True)
class _Mount:
    """A mounted hierarchy; the one of version 2 has a single controller named ''."""

    root: PurePosixPath
    point: PurePosixPath
    controllers: frozenset[str]


def own_limits(root: Path = Path("/")) -> CgroupLimits:
    """Return the tightest limits on this process; no limits where cgroups cannot be read.

    Args:
        root: Where `/proc` and the cgroup mounts are looked for.
    """
    try:
        mounts = list(_mounts((root / "proc/self/mountinfo").read_text()))
        paths = dict(_paths((root / "proc/self/cgroup").read_text()))
    except (OSError, ValueError):
        return CgroupLimits()

    cpus = (_cpus(folder) for folder in _folders(root, mounts, paths, "cpu"))
    memory = (_memory(folder) for folder in _folders(root, mounts, paths, "memory"))
    return CgroupLimits(
        cpus=min((limit for limit in cpus if limit is not None), default=None),
        memory_bytes=min((limit for limit in memory if limit is not None), default=None),
    )


def _mounts(mountinfo: str) -> Iterator[_Mount]:
    for line in mountinfo.splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, _source, options = filesystem.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            root, point = (PurePosixPath(_unescape(text)) for text in mount.split(" ")[3:5])
            controllers = options.split(",") if kind == "cgroup" else [""]
            yield _Mount(root, point, frozenset(controllers))


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match[1], 8)), text)


def _paths(cgroup: str) -> Iterator[tuple[str, PurePosixPath]]:
    """Yield this process's cgroup by controller; version 2 is the controller ''."""
    for line in cgroup.splitlines():
        _number, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, PurePosixPath(path)


def _folders(
    root: Path, mounts: list[_Mount], paths: dict[str, PurePosixPath], controller: str
) -> Iterator[Path]:
    """Yield the folders of our cgroup and of its ancestors, as far up as they are mounted."""
    for mount in mounts:
        for name in mount.controllers & paths.keys() & {controller, ""}:
            # In a container the path may be the host's: then our own cgroup is all that is mounted.
            inside = paths[name].is_relative_to(mount.root) and ".." not in paths[name].parts
            relative = paths[name].relative_to(mount.root) if inside else PurePosixPath()
            for part in (relative, *relative.parents):
                yield root / mount.point.relative_to("/") / part


def _cpus(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").partition(" ")
    if not period:
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
    limit, of = _number(quota), _number(period)
    return limit / of if limit and of else None


def _memory(folder: Path) -> int | None:
    return _number(_read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes"))


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""


def _number(text: str) -> int | None:
    """Return a positive number; None for `max`, -1 and nothing, which mean no limit."""
    return int(text) if text.isdecimal() and int(text) > 0 else None
