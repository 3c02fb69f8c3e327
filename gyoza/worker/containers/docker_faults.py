"""Whose fault a refusal of the Docker Engine is: the run's, or that of the engine and its worker.

Its status says so, but not always: what runtimes say of a program comes as an error of the engine,
and what a worker's own settings ask for as one of the request.
"""

import re

_ENGINES = re.compile(
    r"network \S+ not found|could not find network|no such network|invalid runtime name"
    r"|unknown runtime|range of cpus|docker-init|bind source path does not exist"
    r"|exec: \"(runc|crun|runsc|containerd-shim[^\"]*)\"|invalid log driver|logging driver",
    re.IGNORECASE,
)
_OPS = re.compile(
    r"exec: |exec format|exec failed|argument list too long|executable file not found"
    r"|unable to find (user|group)|no matching entries|no command specified|not a directory"
    r"|\bcwd\b|working directory|memory limit too low|oom-killed",
    re.IGNORECASE,
)


def is_engines_fault(status: int, words: str) -> bool:
    """Return whether the same would be refused of other runs, too, for all that is known.

    Args:
        status: Of the HTTP answer.
        words: What the engine says.
    """
    if _ENGINES.search(words):
        return True
    return status >= 500 and not _OPS.search(words)
