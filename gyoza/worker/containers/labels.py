"""The labels and the name of every container of ours, made here and nowhere else."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

WORKER_ID = "gyoza.worker_id"
RUN_ID = "gyoza.run_id"
ATTEMPT = "gyoza.attempt"
SERVER = "gyoza.server"
GPUS = "gyoza.gpus"


@dataclass(frozen=True)
class ContainerIdentity:
    """Which attempt of which run a container belongs to.

    Attributes:
        server: The server that has the run, as `server_name` says it; empty for a script's.
    """

    worker_id: str
    run_id: str
    attempt: int
    server: str = field(default="", compare=False)

    @property
    def name(self) -> str:
        """The container's name, unique for the attempt."""
        return f"gyoza-{self.run_id}-{self.attempt}"

    @property
    def key(self) -> dict[str, str]:
        """The labels by which it is found, whatever URL the server is called by now."""
        return {WORKER_ID: self.worker_id, RUN_ID: self.run_id, ATTEMPT: str(self.attempt)}

    @property
    def labels(self) -> dict[str, str]:
        """All labels the container carries."""
        return self.key | ({SERVER: self.server} if self.server else {})

    @property
    def cleanup_name(self) -> str:
        """The name of the container with which the engine clears the attempt's folder."""
        return f"{self.name}-cleanup"

    @property
    def cleanup_labels(self) -> dict[str, str]:
        """All labels that one carries: the sweep finds it, and nobody as the attempt's own."""
        return self.labels | {ATTEMPT: f"{self.attempt}-cleanup"} | of_gpus(())

    @classmethod
    def from_labels(cls, labels: Mapping[str, str]) -> "ContainerIdentity | None":
        """Read the labels back; None if they are not ours."""
        try:
            return cls(
                labels[WORKER_ID], labels[RUN_ID], int(labels[ATTEMPT]), labels.get(SERVER, "")
            )
        except (KeyError, ValueError):
            return None


def of_gpus(devices: Iterable[str]) -> dict[str, str]:
    """Return the label that tells which GPUs a container was made for.

    Every container of ours has it: an image can have labels, too, and its own must not count.
    """
    return {GPUS: ",".join(devices)}


def devices_of(labels: Mapping[str, str]) -> list[str]:
    """Return the names of the GPUs that a container was made for."""
    return [device for device in labels.get(GPUS, "").split(",") if device]


def of_worker(worker_id: str) -> dict[str, str]:
    """Return the labels that all containers of a worker share; `""` is any worker."""
    return {WORKER_ID: worker_id}


def server_name(url: str) -> str:
    """Return a server's URL as labels carry it: without credentials, always the same way."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"
