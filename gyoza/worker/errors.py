"""Everything the worker raises for a reason it knows.

Errors:
    WorkerError
      SettingsError            a flag or variable that cannot be used
      WorkerTaken              another process works under this worker's id
      EngineError              the container engine failed or refused        (ENGINE)
        EngineFailed           by its own fault or the worker's, not by the run's
        EngineUnavailable      not there, not permitted, or not answering in time
        ContainerNotFound      the container is gone, or its network
        NameTaken              another container has the name already
        ImageNotFound          no such image on this engine                  (IMAGE_PULL)
        ImagePullError         the registry or the engine refused the pull   (IMAGE_PULL)
          RegistryUnavailable    the registry could not be asked             (IMAGE_PULL)
      InputsInvalid            the run's inputs are not plain data           (POLICY)
      PolicyRefused            it is or has what this worker does not allow  (POLICY)
      GpusTooSmall             it asks for more GPU memory than there is     (POLICY)
      GpusTaken                somebody else on this machine was quicker
      OpDirNotRemoved          something in an op's folder cannot be removed
      OpError                  the op, not the worker, is at fault
        OutputInvalid          its output file is not plain data             (OUTPUT_INVALID)
        OpTimedOut             it ran longer than its `timeout_s`            (TIMED_OUT)
        OpFilledDisk           it filled a disk that others need             (DISK_FULL)
      LeaseLost                the server no longer has this attempt here
      RunInterrupted           it cannot go on here, and not for the op: it is given back
        WorkerLacks            this worker lacks something for it, such as memory
        EngineFails            the engine fails at it, as at others
"""

from gyoza.models import FailureReason, ReleaseReason


class WorkerError(Exception):
    """Base of the tree; `str()` of any of them is one sentence for a person.

    Attributes:
        reason: What a run that ends with this error is reported to have failed of.
    """

    reason: FailureReason = FailureReason.INTERNAL


class SettingsError(WorkerError):
    """A flag or variable that cannot be used."""


class WorkerTaken(WorkerError):
    """Another process works under this worker's id, as the server says."""


class EngineError(WorkerError):
    """The container engine failed or refused."""

    reason = FailureReason.ENGINE


class EngineFailed(EngineError):
    """The engine failed at what it does for every run, or lacks what the worker's settings name."""


class EngineUnavailable(EngineError):
    """The engine is not there, does not permit, or does not answer in time."""


class ContainerNotFound(EngineError):
    """The container is gone, or something that it needs to start, such as its network."""


class NameTaken(EngineError):
    """Another container has the name already."""


class ImageNotFound(EngineError):
    """The engine has no such image."""

    reason = FailureReason.IMAGE_PULL


class ImagePullError(EngineError):
    """The registry or the engine refused the pull."""

    reason = FailureReason.IMAGE_PULL


class RegistryUnavailable(ImagePullError):
    """The registry could not be asked, or could not answer: it may in a moment."""


class InputsInvalid(WorkerError):
    """The inputs of a run are not plain data within the caps."""

    reason = FailureReason.POLICY


class PolicyRefused(WorkerError):
    """A run is, has or asks for something that this worker does not allow."""

    reason = FailureReason.POLICY


class GpusTooSmall(WorkerError):
    """A run asks for more GPU memory than this worker's GPUs have together."""

    reason = FailureReason.POLICY


class GpusTaken(WorkerError):
    """Somebody else on this machine has taken the same GPUs meanwhile: others are to be chosen."""


class OpDirNotRemoved(WorkerError):
    """Something in an op's folder cannot be removed."""


class OpError(WorkerError):
    """The op, not the worker, is at fault."""


class OutputInvalid(OpError):
    """The op's output file is not plain data within the caps."""

    reason = FailureReason.OUTPUT_INVALID


class OpTimedOut(OpError):
    """The op ran longer than its `timeout_s`."""

    reason = FailureReason.TIMED_OUT


class OpFilledDisk(OpError):
    """The op has filled a disk that others need, too."""

    reason = FailureReason.DISK_FULL


class LeaseLost(WorkerError):
    """The server no longer has this attempt at this worker."""


class RunInterrupted(WorkerError):
    """The engine, the machine or this worker ended the run, not the op: it is given back.

    Attributes:
        cause: What is told to the server.
    """

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class WorkerLacks(RunInterrupted):
    """This worker lacks something that the run takes, see `gyoza.worker.lacks`.

    Args:
        lack: What, in words.
    """

    def __init__(self, lack: str) -> None:
        super().__init__(f"This worker lacks {lack}.", ReleaseReason.WORKER_LACKS)


class EngineFails(RunInterrupted):
    """The engine fails, and not for this run, as far as is known."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ReleaseReason.ENGINE_FAILED)
