"""Reads what a server hands out as a run: nothing of it is taken on trust.

The id becomes a path, a container name and a label; everything else becomes part of a container.
"""

from collections.abc import Callable
from typing import Any, cast

from gyoza.models import OpRun, check_id
from gyoza.models.policies import MAX_GRACE_S
from gyoza.worker.errors import PolicyRefused
from gyoza.worker.policy import ContainerPolicy

MAX_ATTEMPT = 2**31
MAX_SECONDS = 1e9

DEMANDS = frozenset(
    {
        *("privileged", "host_config", "security_opt", "cap_add", "capabilities", "devices"),
        *("volumes", "mounts", "binds", "volumes_from", "tmpfs", "device_requests", "gpus"),
        *("network", "network_mode", "networks", "ports", "extra_hosts", "dns"),
        *("runtime", "pid_mode", "ipc_mode", "userns_mode", "uts_mode", "cgroup_parent"),
        *("sysctls", "ulimits", "oom_score_adj", "entrypoint"),
    }
)
"""What a container could be given and no run can ask for: asked all the same, it is refused."""


class UnreadableRun(ValueError):
    """What the server sent cannot even be named, so that it cannot be refused either."""


def run_id_of(data: object) -> tuple[str, int]:
    """Return the id and the attempt of a run that a server sent.

    Raises:
        UnreadableRun: If it has none that could be a path and a container's name.
    """
    if not isinstance(data, dict):
        raise UnreadableRun("it is not an object")
    fields = cast("dict[str, Any]", data)
    try:
        run_id = check_id(fields.get("id") or "", "run id")
    except (TypeError, ValueError) as error:
        raise UnreadableRun(f"its id cannot be used: {str(error)[:200]}") from error
    attempt: Any = fields.get("current_attempt")
    if attempt is not None and (type(attempt) is not int or not 0 <= attempt < MAX_ATTEMPT):
        raise UnreadableRun("its attempt is not a number of attempts")
    return run_id, attempt or 0


def read_run(data: dict[str, Any], policy: ContainerPolicy) -> OpRun:
    """Return the run, if it may be executed here.

    Raises:
        PolicyRefused: If it may not, or something of it is not what it should be.
    """
    for name, is_fine in _FIELDS.items():
        if data.get(name) is not None and not is_fine(data[name]):
            raise PolicyRefused(f"The run's {name} is not what it should be.")
    if demands := [name for name in data if name.lower() in DEMANDS and data[name]]:
        raise PolicyRefused(f"The run asks for {demands[0]}, which no worker gives.")
    try:
        run = OpRun.from_dict(data)
    except (TypeError, ValueError, AttributeError) as error:
        raise PolicyRefused(f"The run cannot be read: {str(error)[:200]!a}.") from error
    policy.require_allowed(run.image, run.constraints.cpu, run.constraints.ram_mb)
    return run


def _text(value: object) -> bool:
    return isinstance(value, str) and "\0" not in value and _encodable(value)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        return False
    return True


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_text, cast("list[object]", value)))


def _variables(value: object) -> bool:
    return isinstance(value, dict) and all(
        _text(name) and name and "=" not in name and _text(text)
        for name, text in cast("dict[str, object]", value).items()
    )


def _number(most: float, least: float = 0) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return type(value) in (int, float) and least <= cast("float", value) <= most  # nor NaN

    return check


def _whole(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _constraints(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    asked = cast("dict[str, object]", value)
    cpu, *whole = (asked.get(name) for name in ("cpu", "ram_mb", "vram_mb"))
    return (cpu is None or _number(1e6)(cpu)) and all(n is None or _whole(n) for n in whole)


_FIELDS: dict[str, Callable[[object], bool]] = {
    "image": _text,
    "command": _texts,
    "env_vars": _variables,
    "secrets": _texts,
    "timeout_s": _number(MAX_SECONDS),
    "grace_s": _number(MAX_GRACE_S),
    "constraints": _constraints,
    "inputs": lambda value: isinstance(value, dict),
}
