"""The events that dead letters write."""

from common.rest.dead_letters import DeadLetterState
from orchestrator.dead_letters.model import Letter
from orchestrator.events.model import Kind, NewEvent

NOTED_BY = "orchestrator"

SETTLED = {DeadLetterState.REPLAYED: Kind.DEAD_LETTER_REPLAYED, DeadLetterState.DISCARDED: Kind.DEAD_LETTER_DISCARDED}


def noted(letter: Letter) -> NewEvent:
    return _about(Kind.DEAD_LETTER_NOTED, letter, NOTED_BY, {"reason": letter.reason})


def settled(letter: Letter, *, by: str) -> NewEvent:
    replayed_as = {} if letter.replayed_as is None else {"replayed_as": str(letter.replayed_as)}
    return _about(SETTLED[letter.state], letter, by, replayed_as)


def _about(kind: Kind, letter: Letter, actor: str, data: dict[str, str]) -> NewEvent:
    about = {"id": letter.id, "kind": letter.kind, "queue": letter.queue, "type": letter.type, **data}
    return NewEvent(kind, actor, about, task_id=letter.task_id)
