"""The names of exchanges and queues, and what is bound to what; the table in docs/reference/messages.md."""

from datetime import timedelta
from uuid import UUID

from common.broker.base import Address, Exchange, ExchangeType, Queue

FORGET_AGENTS_AFTER = timedelta(days=1)

WORK = Exchange("chiffon.work", ExchangeType.DIRECT)
CONTROL = Exchange("chiffon.control", ExchangeType.TOPIC)
REPLIES = Exchange("chiffon.replies", ExchangeType.TOPIC)
DEAD = Exchange("chiffon.dead", ExchangeType.FANOUT)

EXCHANGES = (WORK, CONTROL, REPLIES, DEAD)

RESULTS = "replies.results"
PROGRESS = "replies.progress"
HEARTBEATS = "replies.heartbeats"
DEAD_LETTERS = "dead"

DEAD_LETTER_QUEUE = Queue(DEAD_LETTERS, (Address(DEAD, ""),))

REPLY_QUEUES = (
    Queue(RESULTS, (Address(REPLIES, "*.results"),)),
    Queue(PROGRESS, (Address(REPLIES, "*.progress"),)),
    Queue(HEARTBEATS, (Address(REPLIES, "*.heartbeats"),)),
)


SHARED_QUEUES = (DEAD_LETTER_QUEUE, *REPLY_QUEUES)


def work_queue(agent_type: str, agent_id: UUID) -> Queue:
    """Return the queue of work that is leased to one agent; it goes when the agent stays away."""
    name = f"work.{agent_type}.{agent_id}"
    return Queue(name, (Address(WORK, name),), has_priorities=True, unused_for=FORGET_AGENTS_AFTER)


def work_address(agent_type: str, agent_id: UUID) -> Address:
    return Address(WORK, f"work.{agent_type}.{agent_id}")


def control_queue(agent_id: UUID) -> Queue:
    """Return the queue through which the orchestrator speaks to one agent; it goes when the agent stays away."""
    name = f"control.{agent_id}"
    return Queue(name, (Address(CONTROL, name),), unused_for=FORGET_AGENTS_AFTER)


def control_address(agent_id: UUID) -> Address:
    return Address(CONTROL, f"control.{agent_id}")


def reply_address(agent_id: UUID, queue: str) -> Address:
    """Return where an agent sends what belongs in one of the reply queues."""
    return Address(REPLIES, f"{agent_id}.{queue.removeprefix('replies.')}")


def matches(exchange: ExchangeType, pattern: str, routing_key: str) -> bool:
    """Say whether a binding takes a routing key (AMQP 0-9-1, 3.1.3: `*` is one word, `#` any number of words)."""
    match exchange:
        case ExchangeType.FANOUT:
            return True
        case ExchangeType.DIRECT:
            return pattern == routing_key
        case ExchangeType.TOPIC:
            return _topic_matches(pattern.split("."), routing_key.split("."))


def _topic_matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_topic_matches(pattern[1:], words[taken:]) for taken in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _topic_matches(pattern[1:], words[1:])
