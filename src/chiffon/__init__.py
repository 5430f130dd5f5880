"""Chiffon's public face: the Python client, the `chiffon` command, and `up`, which starts everything on one machine.

    from chiffon import Client

    async with Client("http://127.0.0.1:8420") as chiffon:
        task = await chiffon.dispatch("shell_script", {"argv": ["uname", "-a"]})
        print((await chiffon.wait(task.task_id)).output)

Names are imported when they are first used, so that `chiffon --help` does not wait for an HTTP client.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from common.version import VERSION

if TYPE_CHECKING:
    from chiffon.client import Client as Client
    from chiffon.errors import ApiError as ApiError
    from chiffon.errors import ServerUnreachable as ServerUnreachable
    from chiffon.models import Agent as Agent
    from chiffon.models import BatchResult as BatchResult
    from chiffon.models import Blocker as Blocker
    from chiffon.models import CancelledTrace as CancelledTrace
    from chiffon.models import DeadLetter as DeadLetter
    from chiffon.models import DeadLetterDetail as DeadLetterDetail
    from chiffon.models import DeadLetterPage as DeadLetterPage
    from chiffon.models import DispatchResponse as DispatchResponse
    from chiffon.models import ErrorResponse as ErrorResponse
    from chiffon.models import Event as Event
    from chiffon.models import EventPage as EventPage
    from chiffon.models import OutputPage as OutputPage
    from chiffon.models import Settled as Settled
    from chiffon.models import TaskPage as TaskPage
    from chiffon.models import TaskStatus as TaskStatus
    from chiffon.models import TaskSummary as TaskSummary
    from chiffon.models import Why as Why


__version__ = VERSION

_HOMES = {
    "Client": "chiffon.client",
    "ApiError": "chiffon.errors",
    "ServerUnreachable": "chiffon.errors",
    "Agent": "chiffon.models",
    "BatchResult": "chiffon.models",
    "Blocker": "chiffon.models",
    "CancelledTrace": "chiffon.models",
    "DeadLetter": "chiffon.models",
    "DeadLetterDetail": "chiffon.models",
    "DeadLetterPage": "chiffon.models",
    "DispatchResponse": "chiffon.models",
    "ErrorResponse": "chiffon.models",
    "Event": "chiffon.models",
    "EventPage": "chiffon.models",
    "OutputPage": "chiffon.models",
    "Settled": "chiffon.models",
    "TaskPage": "chiffon.models",
    "TaskStatus": "chiffon.models",
    "TaskSummary": "chiffon.models",
    "Why": "chiffon.models",
}

__all__ = [
    "Agent",
    "ApiError",
    "BatchResult",
    "Blocker",
    "CancelledTrace",
    "Client",
    "DeadLetter",
    "DeadLetterDetail",
    "DeadLetterPage",
    "DispatchResponse",
    "ErrorResponse",
    "Event",
    "EventPage",
    "OutputPage",
    "ServerUnreachable",
    "Settled",
    "TaskPage",
    "TaskStatus",
    "TaskSummary",
    "Why",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
