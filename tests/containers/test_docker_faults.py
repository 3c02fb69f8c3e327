"""Whose fault it is what an engine refuses, by the words of real ones."""

import pytest

from gyoza.worker.containers.docker_faults import is_engines_fault

RUNC = "failed to create shim task: OCI runtime create failed: runc create failed: "


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "network nosuch not found"),
        (400, "Unknown runtime specified nosuch"),
        (400, "unknown or invalid runtime name: nosuch"),
        (400, "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        (400, 'exec: "docker-init": executable file not found in $PATH'),
        (400, RUNC + 'error mounting "/x/docker-init": no such file or directory'),
        (400, 'invalid mount config for type "bind": bind source path does not exist: /work/1'),
        (500, 'failed to create shim task: exec: "runc": executable file not found in $PATH'),
        (500, "error creating overlay mount to /var/lib/docker/overlay2/x: invalid argument"),
        (500, "failed to register layer"),
    ],
)
def test_the_engines(status: int, words: str) -> None:
    assert is_engines_fault(status, words)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (400, "No command specified"),
        (409, 'Conflict. The container name "/x" is already in use'),
        (404, "No such container: x"),
        (400, RUNC + 'exec: "nope": executable file not found in $PATH: unknown'),
        (500, RUNC + 'exec: "/etc": permission denied: unknown'),
        (500, RUNC + "exec /op: exec format error: unknown"),
        (500, "unable to find user nosuch: no matching entries in passwd file"),
        (500, "Cannot mkdir: /etc/passwd is not a directory"),
        (500, RUNC + "container init was OOM-killed (memory limit too low?): unknown"),
    ],
)
def test_the_runs(status: int, words: str) -> None:
    assert not is_engines_fault(status, words)
