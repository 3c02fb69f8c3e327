"""The labels and the name of every container of ours, made here and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass

WORKER_ID = "gyoza.worker_id"
RUN_ID = "gyoza.run_id"
ATTEMPT = "gyoza.attempt"


@dataclass(frozen=True)
class ContainerIdentity:
    """Which attempt of which run a container belongs to."""

    worker_id: str
    run_id: str
    attempt: int

    @property
    def name(self) -> str:
        """The container's name, unique for the attempt."""
        return f"gyoza-{self.run_id}-{self.attempt}"

    @property
    def labels(self) -> dict[str, str]:
        """The labels the container carries."""
        return {WORKER_ID: self.worker_id, RUN_ID: self.run_id, ATTEMPT: str(self.attempt)}

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> "ContainerIdentity | None":
        """Read the labels back; None if they are not ours."""
        try:
            return cls(labels[WORKER_ID], labels[RUN_ID], int(labels[ATTEMPT]))
        except (KeyError, ValueError):
            return None


def of_worker(worker_id: str) -> dict[str, str]:
    """Return the labels that all containers of a worker share."""
    return {WORKER_ID: worker_id}
