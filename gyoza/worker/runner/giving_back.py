"""What the server is told of a claimed run that this worker does not bring to an end itself."""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

from gyoza.client import ApiError, ClientError
from gyoza.models import EventType
from gyoza.worker.backoff import Backoff
from gyoza.worker.containers.labels import ContainerIdentity
from gyoza.worker.errors import PolicyRefused
from gyoza.worker.execution_pipeline.run_scope import Toolbox
from gyoza.worker.server_contact import is_away

logger = logging.getLogger(__name__)


async def give_back(tools: Toolbox, identity: ContainerIdentity, reason: str) -> None:
    """Release a run to the server, again until that has taken or refused it.

    Whoever calls this bounds it. If the server does not hear of it, the lease of the run ends.
    """
    await _tell(
        lambda: tools.client.release_run(
            identity.run_id,
            worker_id=identity.worker_id,
            attempt=identity.attempt,
            reason=reason,
            minimal=True,
        ),
        tools,
        f"Run {identity.run_id} was not given back",
    )


async def refuse(tools: Toolbox, identity: ContainerIdentity, refusal: PolicyRefused) -> None:
    """Report a run FAILED that is not begun, since this worker does not allow it; as `give_back`.

    A refusal that does not reach the server comes up again: the run is in the next claim's answer.
    """
    logger.warning("Run %s is refused: %s", identity.run_id, refusal)
    payload = {"reason": refusal.reason, "error_message": str(refusal), "exit_code": None}
    await _tell(
        lambda: tools.client.add_event(
            identity.run_id,
            EventType.FAILED,
            str(refusal),
            payload,
            worker_id=identity.worker_id,
            attempt=identity.attempt,
            seq=0,
            minimal=True,
        ),
        tools,
        f"Run {identity.run_id}: its refusal was not taken",
    )


async def _tell(send: Callable[[], Awaitable[dict[str, Any]]], tools: Toolbox, failed: str) -> None:
    backoff = Backoff()
    while True:
        try:
            tools.contact.require(await send(), "state")
            return
        except (ApiError, ClientError) as error:
            logger.info("%s: %s", failed, error)
            if not is_away(error) or tools.contact.has_no_endpoint(error):
                return
        await backoff.wait()
