"""Who wants a file that is on its way hears of it once it is stored, without asking again."""

from uuid import UUID, uuid4

import pytest

from common.broker import topology
from common.broker.memory import MemoryBroker
from common.orders import FilePiece
from orchestrator.loops import bring_files
from orchestrator.loops.bring_files import BringFiles
from tests.factories import make_want
from tests.fakes.clock import FakeClock
from tests.integration.orchestrator.scripted_artifacts import ScriptedArtifacts
from tests.integration.orchestrator.test_consume_replies import orders_of

HELLO = FilePiece(want_id=UUID(int=1), data="aGVsbG8=", size=5, sha256="0" * 64)
AGENT = uuid4()


@pytest.fixture
def artifacts() -> ScriptedArtifacts:
    artifacts = ScriptedArtifacts()
    artifacts.files = {"a": None, "b": None}
    return artifacts


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def files(artifacts: ScriptedArtifacts, broker: MemoryBroker, clock: FakeClock) -> BringFiles:
    await broker.declare(topology.control_queue(AGENT))
    return BringFiles(artifacts, broker, clock)


async def told(broker: MemoryBroker) -> list[UUID]:
    return [piece.want_id for piece in await orders_of(broker, AGENT) if isinstance(piece, FilePiece)]


async def test_a_file_comes_once_when_it_is_there(
    files: BringFiles, artifacts: ScriptedArtifacts, broker: MemoryBroker
) -> None:
    first, second = (make_want(AGENT, task_id=uuid4(), path=path) for path in ("a", "b"))
    await files.bring([first, second])

    nothing = await files.run_once()
    artifacts.files["a"] = HELLO
    answered = [await files.run_once(), await files.run_once()]

    assert (nothing, answered) == (0, [1, 0])
    assert await told(broker) == [first.want_id]


async def test_who_asks_no_more_is_forgotten(
    files: BringFiles, artifacts: ScriptedArtifacts, broker: MemoryBroker, clock: FakeClock
) -> None:
    silent, patient = (make_want(AGENT, task_id=uuid4(), path="a") for _ in range(2))
    await files.bring([silent, patient])
    clock.advance(seconds=6)
    await files.bring([patient])
    clock.advance(seconds=6)

    await files.run_once()
    artifacts.files["a"] = HELLO
    await files.run_once()

    assert await told(broker) == [patient.want_id]


async def test_of_many_that_ask_the_oldest_are_forgotten(
    files: BringFiles, artifacts: ScriptedArtifacts, broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bring_files, "MOST_KEPT", 2)
    wants = [make_want(AGENT, task_id=uuid4(), path="a") for _ in range(3)]

    await files.bring(wants)
    artifacts.files["a"] = HELLO
    await files.run_once()

    assert await told(broker) == [want.want_id for want in wants[1:]]
