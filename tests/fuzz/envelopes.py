"""Envelopes that were damaged, and bytes that never were one."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from hypothesis import strategies as st

from common.broker import topology
from common.messages import (
    CancelTask,
    Grant,
    GrantedTask,
    Lease,
    Renew,
    Renewed,
    Stored,
    WorkRequest,
)
from common.orders import ArtifactsStored, Control, FilePiece, Heard, Settle, StepsStored
from common.protocol import (
    MOST_BYTES,
    MOST_REPLY_BYTES,
    ControlEnvelope,
    Envelope,
    RenewEnvelope,
    StatusUpdateEnvelope,
    UnreadableMessage,
    WantFileEnvelope,
    WorkRequestEnvelope,
    WorkResultEnvelope,
    WorkResultsEnvelope,
    WorkStatusEnvelope,
    decode,
    encode,
)
from orchestrator.loops.batches import read_damaged
from tests.factories import (
    make_chunk,
    make_credit,
    make_heartbeat,
    make_piece,
    make_result,
    make_results,
    make_status,
    make_step,
    make_want,
)

CONTROL = "control"
WORK = "work"
ACCEPTED: Mapping[str, tuple[type[Any], ...]] = {
    topology.RESULTS: (WorkResultEnvelope, WorkResultsEnvelope),
    topology.PROGRESS: (WorkStatusEnvelope, WantFileEnvelope, WorkResultEnvelope, WorkResultsEnvelope),
    topology.HEARTBEATS: (StatusUpdateEnvelope, RenewEnvelope),
    CONTROL: (ControlEnvelope,),
    WORK: (WorkRequestEnvelope,),
}
LIMITS = {CONTROL: MOST_BYTES, WORK: MOST_BYTES}
# A drained or paused agent is no proof of anything.
UNWELCOME = ('"drain"', '"pause"')


def is_readable(queue: str, body: bytes) -> bool:
    """Say whether a message is one that belongs in a queue, or whose parts do: then they are what is read."""
    try:
        return isinstance(decode(body, limit=LIMITS.get(queue, MOST_REPLY_BYTES)), ACCEPTED[queue])
    except UnreadableMessage:
        return WorkResultsEnvelope in ACCEPTED[queue] and read_damaged(body) is not None


def _ends() -> dict[str, Any]:
    return {"from_agent": str(uuid4()), "to_agent": "orchestrator"}


def examples() -> list[Envelope]:
    """Return a good envelope of every type, about tasks that nobody knows."""
    task_id, agent_id = uuid4(), uuid4()
    lease = Lease(task_id=task_id, attempt=1)
    work = WorkRequest(task_id=task_id, work_type="echo", parameters={"message": "hello"})
    granted = GrantedTask(
        claim_id=uuid4(), work=work, trace_id=uuid4(), request_id=uuid4(), attempt=1, lease_seconds=60
    )
    chunks = [make_chunk(0, "hello", offset=0)]
    steps = [make_step(0, "analyze"), make_step(5, "rollback", status="skipped", message="nothing to undo")]
    orders = [
        CancelTask(task_id=task_id, attempt=1),
        Renewed(renewal_id=uuid4(), lease_seconds=60, kept=[lease], lost=[lease]),
        Stored(results=[lease]),
        Heard(beat_id=uuid4(), granted=3),
        StepsStored(task_id=task_id, attempt=1, through="rollback"),
        Settle(task_id=task_id, attempt=1),
        ArtifactsStored(task_id=task_id, attempt=1, names=["a.txt"], refused={"b.txt": "it is too large"}),
        FilePiece(want_id=uuid4(), size=5, sha256="0" * 64, data="aGVsbG8="),
        FilePiece(want_id=uuid4(), problem="there is no such file"),
    ]
    return [
        WorkRequestEnvelope(**_ends(), payload=Grant(tasks=[granted], credit=1)),
        WorkStatusEnvelope(**_ends(), payload=make_status(task_id, agent_id, *chunks, progress="half")),
        WorkStatusEnvelope(**_ends(), payload=make_status(task_id, agent_id, steps=steps, pieces=[make_piece()])),
        WantFileEnvelope(**_ends(), payload=make_want(agent_id)),
        WorkResultEnvelope(**_ends(), payload=make_result(task_id, agent_id, chunks=chunks)),
        WorkResultsEnvelope(**_ends(), payload=make_results(agent_id)),
        StatusUpdateEnvelope(**_ends(), payload=make_heartbeat(credit=make_credit())),
        RenewEnvelope(**_ends(), payload=Renew(renewal_id=uuid4(), agent_id=agent_id, leases=[lease])),
        *(ControlEnvelope(**_ends(), payload=Control(order=order)) for order in orders),
    ]


BROKEN: tuple[Any, ...] = (
    None, True, -1, 0, 2**31, 2**63, 2**70, 10**400, 1e308, float("nan"), float("inf"), "", "\x00", "a\x00b", "\ud800",
    "x" * 5000, [], {}, [[[]]], {"": {}}, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "not-a-uuid",
    str(UUID(int=0)),
)  # fmt: skip


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the way to everything inside a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inner for place in [(*path, key), *_places(one, (*path, key))]]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Yield a good envelope in which values were replaced, removed or added, or bytes were lost or flipped."""
    value = json.loads(encode(draw(st.sampled_from(examples()))))
    for _ in range(draw(st.integers(0, 2))):
        places = _places(value)
        *way, last = draw(st.sampled_from(places))
        holder = value
        for key in way:
            holder = holder[key]
        if draw(st.booleans()) and isinstance(holder, dict):
            del holder[last]
        else:
            holder[last] = draw(st.sampled_from(BROKEN))
    body = json.dumps(value).encode()
    if draw(st.sampled_from([False, False, True])):
        at = draw(st.integers(0, len(body)))
        body = draw(
            st.sampled_from([body[:at], body[:at] + b"\xff" + body[at:], b"[" * 5000 + body, b"\xef\xbb\xbf" + body])
        )
    return body


bodies = st.one_of(
    damaged(), damaged(), damaged(), st.binary(max_size=300), st.text(max_size=100).map(str.encode)
).filter(lambda body: not any(word.encode() in body for word in UNWELCOME))
