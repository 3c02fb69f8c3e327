"""Tells an engine that fails from a run that makes it fail: only the second ends the run.

What an engine says does not always tell. An engine that fails at several runs in a row is at fault
itself; one that fails again and again at the same run, and at no other, is not.
"""

MOST = 10
"""How often an engine may fail at one run, and at no other meanwhile, until the run is at fault."""

REMEMBERED = 1000
"""Runs of which that is known, at most."""


class EngineFaults:
    """At which runs the engine of one worker has failed since it last started a container."""

    def __init__(self) -> None:
        self._times: dict[str, int] = {}
        self._in_a_row: set[str] = set()

    def meet(self, run_id: str) -> bool:
        """Say that the engine has failed at a run; return whether that is its own fault."""
        self._in_a_row.add(run_id)
        times = self._times.pop(run_id, 0) + 1
        if times < MOST or len(self._in_a_row) > 1:
            self._times[run_id] = times
            if len(self._times) > REMEMBERED:
                del self._times[next(iter(self._times))]
            return True
        self._in_a_row.discard(run_id)
        return False

    def end(self, run_id: str) -> None:
        """Say that the engine has started a run's container."""
        self._in_a_row.clear()
        self._times.pop(run_id, None)
