"""What is kept of a dead letter, and where a replayed message goes: pure decisions."""

import json
from uuid import UUID

from common.broker import topology
from common.broker.base import Address, Delivery
from common.json_rules import check_json
from common.rest.dead_letters import DeadLetterKind
from common.unreadable import Unreadable
from orchestrator.dead_letters.model import Letter, NewLetter

KEPT_BYTES = 1024 * 1024
NAME_LENGTH = 255
REASON_LENGTH = 2000
UNKNOWN = "unknown"
# Reply queues take `<agent_id>.<kind>`; a message that an orchestrator sends once more comes from none.
REPLAYED_BY = "replayed"
# How the reason begins for a message that did not come from whom it speaks for.
FORGED = "forged: "


def letter_of(delivery: Delivery) -> NewLetter:
    """Return what is noted of a message from the dead letters; of a body beyond 1 MiB only the beginning."""
    return NewLetter(
        DeadLetterKind.MESSAGE,
        queue=_clean(delivery.headers.get("queue", UNKNOWN), NAME_LENGTH),
        type=_clean(_type_of(delivery.body), NAME_LENGTH),
        reason=_clean(delivery.headers.get("reason", "nobody said why"), REASON_LENGTH),
        message_id=_clean(delivery.message_id, NAME_LENGTH) or None,
        body=delivery.body[:KEPT_BYTES],
        body_bytes=len(delivery.body),
        priority=min(max(delivery.priority, 1), 5),
    )


def letter_of_report(report: Unreadable) -> NewLetter:
    """Return what is noted of a message that an agent could not read."""
    body = report.raw[:KEPT_BYTES]
    return NewLetter(
        DeadLetterKind.MESSAGE,
        queue=report.queue,
        type=_clean(_type_of(body), NAME_LENGTH),
        reason=_clean(f"agent {report.agent_id} cannot read it: {report.reason}", REASON_LENGTH),
        message_id=_clean(report.message_id, NAME_LENGTH) or None,
        body=body,
        body_bytes=max(report.body_bytes, len(body)),
        priority=min(max(report.priority, 1), 5),
    )


def _type_of(body: bytes) -> str:
    content = parse(body)
    kind = content.get("type") if isinstance(content, dict) else None
    return kind if isinstance(kind, str) and kind else UNKNOWN


def parse(body: bytes) -> object:
    """Return what the bytes say as JSON; None when they are no JSON that can be shown as such."""
    if len(body) > KEPT_BYTES:
        return None
    try:
        return check_json(json.loads(body))
    except (ValueError, RecursionError):
        return None


def _clean(text: str, limit: int) -> str:
    """Return the text as it can be stored."""
    return text[:limit].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def origin_of(letter: Letter) -> Address | None:
    """Return the address of the queue that a message came from; None when it cannot go there again.

    Work was leased to one session of an agent: what an agent could not read is leased again by itself.
    """
    family, _, name = letter.queue.partition(".")
    match family:
        case "control" if _is_uuid(name):
            return topology.control_address(UUID(name))
        case "replies" if any(letter.queue == queue.name for queue in topology.REPLY_QUEUES):
            return replay_address(letter.queue)
        case _:
            return None


def replay_address(queue: str) -> Address:
    """Return the address under which an orchestrator brings what was once sent to a reply queue there again."""
    return Address(topology.REPLIES, f"{REPLAYED_BY}.{queue.partition('.')[2]}")


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
