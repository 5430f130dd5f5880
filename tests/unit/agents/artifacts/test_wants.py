"""A file that work gets comes whole and as it is, or the work is told why not."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agents.artifacts.wants import MOST_UNDER_WAY, Wants
from agents.executors.base import FilesUnavailable
from agents.link.reporter import Reporter
from common.artifacts import MAX_PIECE_BYTES
from common.broker.base import BrokerUnavailable, Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES
from common.messages import WantFile
from common.orders import FilePiece
from common.protocol import WantFileEnvelope, decode
from tests.eventually import eventually
from tests.factories import make_credit
from tests.unit.agents.artifacts.making import AGENT, LIMIT, make_owner

LARGE = bytes(range(256)) * (MAX_PIECE_BYTES * 9 // 2 // 256)

Answer = Callable[[WantFile], Sequence[FilePiece]]


def piece_of(content: bytes, want: WantFile, *, most: int = MAX_PIECE_BYTES, **changes: Any) -> FilePiece:
    """Return what an orchestrator answers."""
    given = {
        "want_id": want.want_id,
        "offset": want.offset,
        "data": b64encode(content[want.offset : want.offset + most]).decode(),
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    return FilePiece.model_validate({**given, **changes})


class Orchestrator(MemoryBroker):
    """Answers what an agent wants, as a test says. `wants`: all of them; `is_away`: it takes none."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer
        self.taker: Callable[[FilePiece], None] = lambda _: None
        self.wants: list[WantFile] = []
        self.envelopes: list[WantFileEnvelope] = []
        self.is_away = False

    async def publish(self, *messages: Outgoing) -> None:
        if self.is_away:
            raise BrokerUnavailable("away")
        for message in messages:
            envelope = decode(message.body)
            assert isinstance(envelope, WantFileEnvelope)
            self.envelopes.append(envelope)
            self.wants.append(envelope.payload)
            for piece in self.answer(envelope.payload):
                asyncio.get_running_loop().call_soon(self.taker, piece)


Open = Callable[..., AbstractAsyncContextManager[tuple[Wants, Orchestrator]]]


@pytest.fixture
def wanting() -> Open:
    @asynccontextmanager
    async def opened(
        answer: Answer, *, limit: int = LIMIT, again: float = 60.0, give_up: float = 60.0
    ) -> AsyncIterator[tuple[Wants, Orchestrator]]:
        orchestrator = Orchestrator(answer)
        await orchestrator.declare(*REPLY_QUEUES)
        async with Reporter(orchestrator, AGENT, make_credit) as reporter:
            wants = Wants(
                reporter,
                AGENT,
                limit=limit,
                ask_again_after=timedelta(seconds=again),
                give_up_after=timedelta(seconds=give_up),
            )
            orchestrator.taker = wants.take
            yield wants, orchestrator

    return opened


@pytest.mark.parametrize("content", [b"", b"small", LARGE[: 2 * MAX_PIECE_BYTES], LARGE], ids=len)
async def test_a_file_comes_in_pieces_and_is_what_was_asked_for(wanting: Open, tmp_path: Path, content: bytes) -> None:
    digest = hashlib.sha256(content).hexdigest()
    async with wanting(lambda want: [piece_of(content, want)]) as (wants, orchestrator):
        await wants.fetch("in/a.bin", make_owner(3, attempt=2), tmp_path / "a.bin", sha256=digest)

    assert (tmp_path / "a.bin").read_bytes() == content
    owner = make_owner(3, attempt=2)
    assert {(want.task_id, want.attempt, want.path, want.agent_id) for want in orchestrator.wants} == {
        (owner.task_id, 2, "in/a.bin", AGENT)
    }
    assert {(one.trace_id, one.request_id) for one in orchestrator.envelopes} == {(owner.trace_id, owner.request_id)}
    assert sorted(want.offset for want in orchestrator.wants) == list(range(0, max(1, len(content)), MAX_PIECE_BYTES))


async def test_several_pieces_are_asked_for_at_a_time_but_not_all(wanting: Open, tmp_path: Path) -> None:
    content = LARGE * 3
    held: list[WantFile] = []

    def answer(want: WantFile) -> list[FilePiece]:
        if want.offset == 0:
            return [piece_of(content, want)]
        held.append(want)
        return []

    async with wanting(answer) as (wants, orchestrator):
        fetching = asyncio.create_task(wants.fetch("a", make_owner(), tmp_path / "a"))
        await eventually(lambda: len(held) == MOST_UNDER_WAY)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(held) == MOST_UNDER_WAY
        orchestrator.answer = lambda want: [piece_of(content, want)]
        # In another order than they were asked for.
        for want in reversed(held):
            wants.take(piece_of(content, want))
        await fetching

    assert (tmp_path / "a").read_bytes() == content


async def test_pieces_may_be_smaller_than_the_first(wanting: Open, tmp_path: Path) -> None:
    def answer(want: WantFile) -> list[FilePiece]:
        return [piece_of(LARGE, want, most=MAX_PIECE_BYTES if want.offset == 0 else 50_000)]

    async with wanting(answer) as (wants, _):
        await wants.fetch("a", make_owner(), tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == LARGE


async def test_an_answer_that_comes_twice_or_for_nobody_is_left_alone(wanting: Open, tmp_path: Path) -> None:
    def answer(want: WantFile) -> list[FilePiece]:
        stray = piece_of(b"stray", want.model_copy(update={"want_id": make_owner(9).task_id, "offset": 0}))
        return [stray, piece_of(LARGE, want), piece_of(LARGE, want)]

    async with wanting(answer) as (wants, _):
        await wants.fetch("a", make_owner(), tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == LARGE


async def test_what_is_not_answered_is_asked_again_with_the_same_name(wanting: Open, tmp_path: Path) -> None:
    seen: set[object] = set()

    def answer(want: WantFile) -> list[FilePiece]:
        if want.want_id in seen:
            return [piece_of(LARGE, want)]
        seen.add(want.want_id)
        return []

    async with wanting(answer, again=0.02) as (wants, orchestrator):
        await wants.fetch("a", make_owner(), tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == LARGE
    assert len(orchestrator.wants) == 2 * len(seen)


async def test_an_outage_is_waited_for(wanting: Open, tmp_path: Path) -> None:
    async with wanting(lambda want: [piece_of(LARGE, want)], again=0.05) as (wants, orchestrator):
        orchestrator.is_away = True
        fetching = asyncio.create_task(wants.fetch("a", make_owner(), tmp_path / "a"))
        await asyncio.sleep(0.2)
        orchestrator.is_away = False
        await fetching

    assert (tmp_path / "a").read_bytes() == LARGE


async def refused(wanting: Open, place: Path, answer: Answer, **given: Any) -> FilesUnavailable:
    sha256 = given.pop("sha256", None)
    async with wanting(answer, **given) as (wants, _):
        with pytest.raises(FilesUnavailable) as problem:
            await wants.fetch("a", make_owner(), place, sha256=sha256)
    return problem.value


async def test_a_file_that_never_comes_is_given_up(wanting: Open, tmp_path: Path) -> None:
    problem = await refused(wanting, tmp_path / "a", lambda _: [], again=0.01, give_up=0.1)

    assert str(problem) == "the orchestrator did not send it within 0.1 s"
    assert problem.may_come


async def test_a_piece_that_never_comes_is_given_up(wanting: Open, tmp_path: Path) -> None:
    def answer(want: WantFile) -> list[FilePiece]:
        return [] if want.offset == MAX_PIECE_BYTES else [piece_of(LARGE, want)]

    problem = await refused(wanting, tmp_path / "a", answer, again=0.01, give_up=0.1)

    assert "did not send it" in str(problem)


async def test_a_problem_is_said_in_the_words_of_the_orchestrator(wanting: Open, tmp_path: Path) -> None:
    def answer(want: WantFile) -> list[FilePiece]:
        return [FilePiece(want_id=want.want_id, problem="There is no upload with that digest.")]

    problem = await refused(wanting, tmp_path / "a", answer)

    assert str(problem) == "There is no upload with that digest"


async def test_another_digest_than_the_one_that_was_asked_for_is_refused(wanting: Open, tmp_path: Path) -> None:
    problem = await refused(wanting, tmp_path / "a", lambda want: [piece_of(b"other", want)], sha256="0" * 64)

    assert f"and not {'0' * 64}" in str(problem)
    assert not (tmp_path / "a").exists()


async def test_content_that_has_not_its_digest_is_refused(wanting: Open, tmp_path: Path) -> None:
    def answer(want: WantFile) -> list[FilePiece]:
        return [piece_of(LARGE, want, sha256="1" * 64)]

    problem = await refused(wanting, tmp_path / "a", answer)

    assert f"has not the SHA-256 {'1' * 64}" in str(problem)


@pytest.mark.parametrize("change", [{"sha256": "1" * 64}, {"size": len(LARGE) + 1}], ids=["digest", "size"])
async def test_a_file_that_changes_while_it_is_sent_is_refused(
    wanting: Open, tmp_path: Path, change: dict[str, Any]
) -> None:
    def answer(want: WantFile) -> list[FilePiece]:
        return [piece_of(LARGE, want, **(change if want.offset else {}))]

    assert "changed while it was sent" in str(await refused(wanting, tmp_path / "a", answer))


async def test_another_piece_than_was_asked_for_is_refused(wanting: Open, tmp_path: Path) -> None:
    def answer(want: WantFile) -> list[FilePiece]:
        return [piece_of(LARGE, want.model_copy(update={"offset": 0}))]

    assert "another piece" in str(await refused(wanting, tmp_path / "a", answer))


async def test_a_file_that_is_too_large_is_refused_before_it_is_fetched(wanting: Open, tmp_path: Path) -> None:
    problem = await refused(wanting, tmp_path / "a", lambda want: [piece_of(LARGE, want)], limit=len(LARGE) - 1)

    assert f"{len(LARGE)} bytes" in str(problem)
    assert "max_artifact_bytes" in str(problem)
    assert not problem.may_come
    assert not (tmp_path / "a").exists()


async def test_nothing_waits_any_more_when_a_fetch_is_given_up(wanting: Open, tmp_path: Path) -> None:
    async with wanting(lambda want: [piece_of(LARGE, want)] if want.offset == 0 else []) as (wants, orchestrator):
        fetching = asyncio.create_task(wants.fetch("a", make_owner(), tmp_path / "a"))
        await eventually(lambda: len(orchestrator.wants) > MOST_UNDER_WAY)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)

        assert wants._waiting == {}
