"""The domain types that server, worker, client and CLI share; imports nothing of gyoza."""

from gyoza.models.attempt import OpAttempt
from gyoza.models.definition import InputSpec, InputSpecs, InputValidationError, OpDefinition
from gyoza.models.gpus import MIG_TAG, pick_gpus
from gyoza.models.ids import InvalidIdError, check_id
from gyoza.models.images import ImageName, InvalidImageError, check_image, is_image_id
from gyoza.models.policies import Constraints, EventDelivery, RetryPolicy
from gyoza.models.run import EventEntry, ExecutionSummary, OpRun
from gyoza.models.states import TRANSITIONS, EventType, FailureReason, OpRunState, ReleaseReason

__all__ = [
    "MIG_TAG",
    "TRANSITIONS",
    "Constraints",
    "EventDelivery",
    "EventEntry",
    "EventType",
    "ExecutionSummary",
    "FailureReason",
    "ImageName",
    "InputSpec",
    "InputSpecs",
    "InputValidationError",
    "InvalidIdError",
    "InvalidImageError",
    "OpAttempt",
    "OpDefinition",
    "OpRun",
    "OpRunState",
    "ReleaseReason",
    "RetryPolicy",
    "check_id",
    "check_image",
    "is_image_id",
    "pick_gpus",
]
