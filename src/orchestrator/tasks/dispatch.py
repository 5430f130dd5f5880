"""What a dispatch means: pure decisions about routing and about the same thing asked twice."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from common.canonical import canonical_json
from common.errors import Conflict, ErrorCode, Invalid, InvalidField
from common.labels import check_task_labels
from common.rest.tasks import LONGEST_NAME
from common.rest.work import HIGHEST_LIMIT, LONGEST_KEY, LONGEST_WAIT
from common.visible import is_hidden
from common.work import content_of
from orchestrator.tasks.model import (
    ATTEMPTS_IF_IDEMPOTENT,
    NORMAL_PRIORITY,
    Identity,
    NewTask,
    Task,
    digest_of,
    precedence_of,
    terms_of,
)

# How the concurrency keys begin that a fan-out gives its tasks. Queries name it, too.
FAN_OUT = "fan-out:"


class UnknownWorkType(Invalid, ValueError):
    """No route leads from this work type to a type of agent."""

    code = ErrorCode.UNKNOWN_WORK_TYPE

    def __init__(self, work_type: str, known: Iterable[str]) -> None:
        super().__init__(f"work_type {work_type!r} is not known. Allowed: {', '.join(sorted(known))}.")


class IdempotencyConflict(Conflict):
    """The id is taken by other work."""

    code = ErrorCode.IDEMPOTENCY_CONFLICT

    def __init__(self, key: str, value: UUID, known_as: UUID) -> None:
        super().__init__(
            f"{key} {value} was already used for other content (task {known_as}). "
            "Send the same content to get the same answer, or new ids for new work."
        )


def agent_type_for(work_type: str, hints: Mapping[str, object], routes: Mapping[str, str]) -> str:
    """Return the type of agent that runs a work type; the hint `agent_type` may name another that is known."""
    if work_type not in routes:
        raise UnknownWorkType(work_type, routes)
    wanted = hints.get("agent_type")
    if wanted is None:
        return routes[work_type]
    known = sorted(set(routes.values()))
    if wanted not in known:
        raise InvalidField("hints.agent_type", f"{wanted!r} is not known; allowed: {', '.join(known)}")
    return str(wanted)


def check_keys(ordering_key: str | None, concurrency_key: str | None, concurrency_limit: int | None) -> None:
    """Raise `InvalidField` for the first key or limit that cannot be kept."""
    for field, key in (("ordering_key", ordering_key), ("concurrency_key", concurrency_key)):
        if key is not None and not 1 <= len(key) <= LONGEST_KEY:
            raise InvalidField(field, f"must have 1 to {LONGEST_KEY} characters")
    if concurrency_key is not None and concurrency_key.startswith(FAN_OUT):
        raise InvalidField("concurrency_key", f"must not begin with {FAN_OUT!r}, which names the tasks of a fan-out")
    if concurrency_key is not None and concurrency_limit is None:
        raise InvalidField(
            "concurrency_limit", "is required with 'concurrency_key': how many of them may run at a time"
        )
    if concurrency_key is None and concurrency_limit is not None:
        raise InvalidField("concurrency_limit", "is allowed only with 'concurrency_key', whose tasks it counts")
    if concurrency_limit is not None and not 1 <= concurrency_limit <= HIGHEST_LIMIT:
        raise InvalidField("concurrency_limit", f"must be from 1 to {HIGHEST_LIMIT}")


def check_name(name: str, labels: Mapping[str, str]) -> None:
    """Raise `InvalidField` for a name or a label that a task cannot have."""
    if len(name) > LONGEST_NAME or any(map(is_hidden, name)):
        raise InvalidField("name", f"must have at most {LONGEST_NAME} characters, and only such that can be seen")
    try:
        check_task_labels(labels)
    except ValueError as problem:
        raise InvalidField("labels", str(problem)) from None


def check_wait(expires_after: timedelta | None) -> None:
    """Raise `InvalidField` for a limit on waiting that cannot be kept."""
    if expires_after is not None and not timedelta(0) < expires_after <= LONGEST_WAIT:
        raise InvalidField(
            "expires_after_seconds", f"must be more than 0 and at most {LONGEST_WAIT.total_seconds():.0f} (30 days)"
        )


def attempts(*, idempotent: bool, wanted: int | None) -> int:
    """Return how often a task may start: once, unless it is harmless to repeat or the caller says otherwise."""
    if wanted is not None:
        return wanted
    return ATTEMPTS_IF_IDEMPOTENT if idempotent else 1


def check_priority(priority: int) -> None:
    """Raise `InvalidField` for a priority that there is not."""
    if not 1 <= priority <= 5:
        raise InvalidField("priority", "must be from 1 (background) to 5 (critical)")


def asked_terms(
    *,
    priority: int = NORMAL_PRIORITY,
    idempotent: bool = False,
    max_attempts: int | None = None,
    ordering_key: str | None = None,
    concurrency_key: str | None = None,
    concurrency_limit: int | None = None,
    expires_after: timedelta | None = None,
) -> dict[str, Any]:
    """Return the terms that a dispatch with these values would have; raises `InvalidField`."""
    check_priority(priority)
    check_keys(ordering_key, concurrency_key, concurrency_limit)
    check_wait(expires_after)
    return terms_of(
        priority=priority,
        precedence=precedence_of(priority),
        idempotent=idempotent,
        max_attempts=attempts(idempotent=idempotent, wanted=max_attempts),
        ordering_key=ordering_key,
        concurrency_key=concurrency_key,
        concurrency_limit=concurrency_limit,
        stop_after=None,
        expires_after=expires_after,
    )


def is_known(task: NewTask, known: Iterable[Identity]) -> bool:
    """Say whether something was dispatched before under one of a task's ids."""
    return any(task.task_id == identity.task_id or task.request_id == identity.request_id for identity in known)


def written_differently(tasks: Iterable[NewTask], known: Iterable[Identity]) -> list[UUID]:
    """Return the known tasks of which one of these has an id but not the digest, so that only their rows can tell."""
    digests: dict[UUID, set[bytes]] = {}
    for task in tasks:
        for id in (task.task_id, task.request_id):
            digests.setdefault(id, set()).add(task.digest)
    return [
        one.task_id
        for one in known
        if (digests.get(one.task_id, set()) | digests.get(one.request_id, set())) - {one.digest}
    ]


def recognise(task: NewTask, known: Iterable[Identity], stored: Mapping[UUID, Task]) -> Identity:
    """Return the task that was dispatched before under one of these ids, or raise `IdempotencyConflict`.

    `stored` are the rows of those that were `written_differently`.
    """
    found = {
        identity for identity in known if task.task_id == identity.task_id or task.request_id == identity.request_id
    }
    for identity in found:
        if len(found) > 1 or not (
            identity.digest == task.digest or is_same(task, stored[identity.task_id], identity.digest)
        ):
            if identity.task_id == task.task_id:
                raise IdempotencyConflict("task_id", task.task_id, identity.task_id)
            raise IdempotencyConflict("request_id", task.request_id, identity.task_id)
    return found.pop()


def is_same(task: NewTask, stored: Task, digest: bytes) -> bool:
    """Return whether a task asks for what a stored one did in other words: 10.0 is 10, a default may be left out.

    The limit of a concurrency key is in the digest of the stored task only.
    """
    before = stored.asked(concurrency_limit=task.concurrency_limit, stop_after=task.stop_after)
    if _value_of(before) != _value_of(task.asked):
        return False
    return task.concurrency_key is None or digest_of(before) == digest


def _value_of(asked: Mapping[str, Any]) -> bytes:
    return canonical_json({**asked, "parameters": content_of(asked["work_type"], asked["parameters"])})
