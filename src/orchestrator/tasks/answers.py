"""Tasks as the REST API answers them."""

from common.rest.tasks import DispatchResponse
from orchestrator.tasks.model import Identity


def dispatched(known: Identity) -> DispatchResponse:
    """Return the ids of a dispatch. Each dispatch is answered with it, and keywords take less time than attributes."""
    return DispatchResponse(
        trace_id=known.trace_id,
        request_id=known.request_id,
        task_id=known.task_id,
        status=known.status,
        approval_id=known.approval_id,
    )
