"""Messages about inner steps and files are on the wire as written down here, and say no more than they must."""

import json
from base64 import b64encode
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import ValidationError

from common.artifacts import LONGEST_ARTIFACT_NAME, MAX_PIECE_BYTES, MOST_PIECES, check_artifact_name
from common.messages import LONGEST_MESSAGE, MOST_STEPS, ArtifactPiece, StepReport, StepStatus, WantFile, WorkStatus
from common.orders import MOST_NAMES, ArtifactsStored, Control, FilePiece, Settle, StepsStored
from common.protocol import ORCHESTRATOR, ControlEnvelope, Envelope, WorkStatusEnvelope, decode, encode
from orchestrator.dead_letters.rules import KEPT_BYTES
from tests.factories import make_piece, make_status, make_step, make_want

TASK, AGENT, WANT = "00000000-0000-4000-8000-000000000001", str(UUID(int=2)), str(UUID(int=3))
HELLO = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
ENVELOPE = {
    "protocol_version": "1.0",
    "message_id": "00000000-0000-7000-8000-000000000009",
    "from_agent": AGENT,
    "to_agent": "orchestrator",
    "timestamp": "2026-11-22T10:00:00Z",
    "trace_id": None,
    "request_id": None,
    "priority": 3,
}
STATUS: dict[str, Any] = {"task_id": TASK, "agent_id": AGENT, "attempt": 2, "progress": "", "chunks": []}
WRITTEN: dict[str, tuple[str, Any]] = {
    "steps": (
        "work_status",
        {
            **STATUS,
            "steps": [
                {
                    "position": 2,
                    "name": "build",
                    "status": "in_progress",
                    "started_at": "2026-11-22T10:00:00Z",
                    "finished_at": None,
                    "message": "",
                },
                {
                    "position": 5,
                    "name": "rollback",
                    "status": "skipped",
                    "started_at": None,
                    "finished_at": "2026-11-22T10:00:01.500000Z",
                    "message": "nothing was changed",
                },
            ],
        },
    ),
    "pieces": (
        "work_status",
        {
            **STATUS,
            "pieces": [
                {
                    "name": "dist/a.whl",
                    "type": "file",
                    "sha256": HELLO,
                    "size": 5,
                    "offset": 2,
                    "data": "bGxv",
                }
            ],
        },
    ),
    "want": (
        "want_file",
        {"want_id": WANT, "agent_id": AGENT, "task_id": TASK, "attempt": 1, "path": "in/data.csv", "offset": 131072},
    ),
    "steps_stored": (
        "control",
        {"order": {"action": "steps_stored", "task_id": TASK, "attempt": 2, "through": "rollback"}},
    ),
    "settle": ("control", {"order": {"action": "settle", "task_id": TASK, "attempt": 2}}),
    "artifacts_stored": (
        "control",
        {
            "order": {
                "action": "artifacts_stored",
                "task_id": TASK,
                "attempt": 2,
                "names": ["build.log"],
                "refused": {"dump.bin": "it has more than 67108864 bytes"},
            }
        },
    ),
    "file_piece": (
        "control",
        {
            "order": {
                "action": "file_piece",
                "want_id": WANT,
                "offset": 0,
                "data": "aGVsbG8=",
                "size": 5,
                "sha256": HELLO,
                "problem": "",
            }
        },
    ),
    "problem": (
        "control",
        {
            "order": {
                "action": "file_piece",
                "want_id": WANT,
                "offset": 7,
                "data": "",
                "size": 0,
                "sha256": "",
                "problem": "the task kept no file of this name",
            }
        },
    ),
}


@pytest.mark.parametrize(("kind", "payload"), WRITTEN.values(), ids=list(WRITTEN))
def test_a_message_is_read_and_written_as_it_stands_here(kind: str, payload: Any) -> None:
    written = {**ENVELOPE, "type": kind, "payload": payload}

    assert json.loads(encode(decode(json.dumps(written).encode()))) == written


def test_what_says_nothing_of_steps_and_files_is_as_an_earlier_version_wrote_it() -> None:
    envelope = WorkStatusEnvelope(from_agent=AGENT, to_agent=ORCHESTRATOR, payload=WorkStatus.model_validate(STATUS))

    assert json.loads(encode(envelope))["payload"] == STATUS


def test_what_an_earlier_version_wrote_is_read_and_says_nothing_of_steps_and_files() -> None:
    envelope = decode(json.dumps({**ENVELOPE, "type": "work_status", "payload": STATUS}).encode())

    assert isinstance(envelope, WorkStatusEnvelope)
    assert (envelope.payload.steps, envelope.payload.pieces) == ([], [])


@pytest.mark.parametrize(
    "order",
    [
        StepsStored(task_id=uuid4(), attempt=1, through="rollback"),
        Settle(task_id=uuid4(), attempt=1),
        ArtifactsStored(task_id=uuid4(), attempt=1),
        FilePiece(want_id=uuid4(), problem="gone"),
    ],
    ids=lambda order: order.action,
)
def test_a_field_of_an_order_that_only_a_newer_peer_knows_is_ignored(order: Any) -> None:
    envelope = ControlEnvelope(from_agent=ORCHESTRATOR, to_agent=AGENT, payload=Control(order=order))
    body = encode(envelope).replace(b'"action":', b'"mood":"good","action":')

    assert decode(body) == envelope


def test_the_largest_messages_about_files_are_whole_when_they_become_dead_letters() -> None:
    content = bytes(MAX_PIECE_BYTES)
    name = "é" * (LONGEST_ARTIFACT_NAME // 2)
    pieces = [make_piece(content, name, type="f" * 64, size=2**53 - 1, offset=2**52)] * MOST_PIECES
    said = WorkStatusEnvelope(
        from_agent=AGENT, to_agent=ORCHESTRATOR, payload=make_status(uuid4(), uuid4(), pieces=pieces)
    )
    piece = FilePiece(want_id=uuid4(), size=MAX_PIECE_BYTES, sha256=HELLO, data=b64encode(content).decode())
    answer = ControlEnvelope(from_agent=ORCHESTRATOR, to_agent=AGENT, payload=Control(order=piece))

    envelopes: tuple[Envelope, ...] = (said, answer)
    for envelope in envelopes:
        assert decode(encode(envelope)) == envelope
        assert len(encode(envelope)) <= KEPT_BYTES


@pytest.mark.parametrize(
    ("field", "most", "item"),
    [
        ("steps", MOST_STEPS, make_step().model_dump(mode="json")),
        ("pieces", MOST_PIECES, make_piece().model_dump(mode="json")),
    ],
)
def test_a_report_holds_lists_of_the_largest_size_and_no_larger(field: str, most: int, item: Any) -> None:
    assert len(getattr(WorkStatus.model_validate({**STATUS, field: [item] * most}), field)) == most
    with pytest.raises(ValidationError, match="at most"):
        WorkStatus.model_validate({**STATUS, field: [item] * (most + 1)})


@pytest.mark.parametrize("field", ["names", "refused"])
def test_an_order_about_files_names_as_many_as_an_attempt_may_keep_and_no_more(field: str) -> None:
    def told(count: int) -> ArtifactsStored:
        names = [f"{number}.txt" for number in range(count)]
        given = names if field == "names" else dict.fromkeys(names, "too large")
        return ArtifactsStored.model_validate({"task_id": TASK, "attempt": 1, field: given})

    assert len(getattr(told(MOST_NAMES), field)) == MOST_NAMES
    with pytest.raises(ValidationError, match="at most"):
        told(MOST_NAMES + 1)


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("position", [0, MOST_STEPS - 1], [-1, MOST_STEPS, 1.5]),
        ("name", ["a", "build", "x" * 64, "a-b_9"], ["", "Build", "9a", "x" * 65, "a b", "build\n", "é"]),
        ("status", list(StepStatus), ["", "pending", "SUCCEEDED", None]),
        ("started_at", [None, "2026-11-22T10:00:00+02:00"], ["2026-11-22T10:00:00", 5, "soon"]),
        ("finished_at", [None, "2026-11-22T10:00:00Z"], ["0001-01-01T00:00:00+14:00", 5]),
        ("message", ["", "grüße", "x" * LONGEST_MESSAGE], ["x" * (LONGEST_MESSAGE + 1), "a\nb", "a\x00b", "\u202e"]),
    ],
)
def test_a_step_is_read_within_its_limits_only(field: str, good: list[Any], bad: list[Any]) -> None:
    said = make_step().model_dump(mode="json")

    for value in good:
        StepReport.model_validate({**said, field: value})
    for value in bad:
        with pytest.raises(ValidationError, match=field):
            StepReport.model_validate({**said, field: value})


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("data", "aGVsbG8", "must be base64"),
        ("data", "aGVsbG8=\n", "must be base64"),
        ("data", "é", "must be base64"),
        ("data", b64encode(bytes(MAX_PIECE_BYTES + 1)).decode(), "at most 131072 bytes"),
        ("data", "A" * 200_000, "at most"),
        ("data", "", "must not be empty"),
        ("size", 4, "must end within the file: it holds 5 bytes from 0 on, and the file has 4"),
        ("offset", 1, "must end within the file"),
        ("offset", -1, "greater than or equal to 0"),
        ("size", 2**53, "less than or equal to"),
        ("sha256", HELLO.upper(), "match"),
        ("sha256", f"{HELLO}\n", "match"),
        ("type", "Build Log", "match"),
        ("name", "../secret", "relative path"),
    ],
)
def test_a_piece_that_cannot_be_part_of_its_file_is_refused_with_a_reason(
    field: str, value: object, problem: str
) -> None:
    said = make_piece().model_dump(mode="json")

    with pytest.raises(ValidationError, match=problem):
        ArtifactPiece.model_validate({**said, field: value})


def test_an_empty_file_is_one_piece() -> None:
    assert make_piece(b"").raw == b""


@pytest.mark.parametrize("name", ["a", "dist/a.whl", ".hidden", "a..b", "...", "x" * 255, "é" * 127, "a b/c d"])
def test_a_name_of_an_artifact_is_a_path_below_its_folder(name: str) -> None:
    assert check_artifact_name(name) == name
    assert make_want(UUID(AGENT), path=name).path == name


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "1 to 255 bytes"),
        ("x" * 256, "1 to 255 bytes"),
        ("é" * 128, "1 to 255 bytes"),
        ("/etc/passwd", "relative path"),
        ("..", "relative path"),
        ("a/../../b", "relative path"),
        (".", "relative path"),
        ("a/./b", "relative path"),
        ("a//b", "relative path"),
        ("a/", "relative path"),
        ("a\\b", "backslash"),
        ("a\nb", "control"),
        ("a\x00b", "control"),
        ("a\u202eb", "bidirectional"),
        ("\ud800", "surrogate"),
    ],
)
def test_a_name_that_leads_elsewhere_or_cannot_be_shown_is_refused(name: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_artifact_name(name)
    with pytest.raises(ValidationError):
        WantFile.model_validate({**make_want(UUID(AGENT)).model_dump(), "path": name})


@pytest.mark.parametrize(
    "changed",
    [{"sha256": ""}, {"data": ""}, {"size": 4}, {"offset": 1}, {"data": "?"}, {"sha256": "abc"}],
    ids=str,
)
def test_a_piece_of_a_file_that_is_brought_is_whole_or_has_a_problem(changed: dict[str, Any]) -> None:
    piece = {"want_id": WANT, "offset": 0, "data": "aGVsbG8=", "size": 5, "sha256": HELLO}

    assert FilePiece.model_validate(piece).raw == b"hello"
    with pytest.raises(ValidationError):
        FilePiece.model_validate({**piece, **changed})
