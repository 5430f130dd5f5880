"""Reports of progress go out rarely, the newest of them, and the last one always."""

import asyncio
from pathlib import Path

import pytest

from agents.output import progress as module
from agents.output.progress import Progress
from agents.output.progress_file import ProgressFiles, file_in
from tests.eventually import eventually

SECRET = "correct-horse-battery"


class Orchestrator:
    """Takes reports; they are stored when `store` is called, or at once."""

    def __init__(self, *, stores: bool = True) -> None:
        self.reports: list[str] = []
        self.at: list[float] = []
        self.stores = stores
        self._waiting: list[asyncio.Future[None]] = []

    def hand_in(self, report: str) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        self.reports.append(report)
        self.at.append(loop.time())
        stored: asyncio.Future[None] = loop.create_future()
        self._waiting.append(stored)
        if self.stores:
            self.store()
        return stored

    def store(self) -> None:
        while self._waiting:
            self._waiting.pop().set_result(None)

    def lose(self) -> None:
        self._waiting.pop().set_exception(OSError("gone"))


def hidden(text: str) -> str:
    return text.replace(SECRET, "[redacted]")


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> float:
    """Have a second last less."""
    monkeypatch.setattr(module, "EVERY_SECONDS", 0.05)
    return 0.05


async def test_the_first_report_goes_out_at_once() -> None:
    orchestrator = Orchestrator()
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        progress.say("copying", 40)

        assert orchestrator.reports == ["40% copying"]


async def test_reports_that_follow_quickly_replace_each_other_until_one_is_due(often: float) -> None:
    orchestrator = Orchestrator()
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        for number in range(100):
            progress.say("copying", number)
        await eventually(lambda: len(orchestrator.reports) == 2)
        for _ in range(3):
            progress.say("and on", 99)
            await asyncio.sleep(0)
        await eventually(lambda: len(orchestrator.reports) == 3)

    assert orchestrator.reports == ["0% copying", "99% copying", "99% and on"]
    # A timer may be a little early, by the resolution of its clock.
    assert min(later - one for one, later in zip(orchestrator.at, orchestrator.at[1:], strict=False)) > 0.95 * often


async def test_the_last_report_goes_out_at_the_end_and_nothing_after_it() -> None:
    orchestrator = Orchestrator()
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        progress.say("begun", 1)
        progress.say("nearly", 98)
        progress.say("done", 100)
        progress.finish()
        progress.say("from the grave")

    assert orchestrator.reports == ["1% begun", "100% done"]


async def test_what_was_said_already_is_not_said_again(often: float) -> None:
    orchestrator = Orchestrator()
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        for message in ("one", "one", "two", "one"):
            progress.say(message)
        progress.finish()

    assert orchestrator.reports == ["one"]


async def test_reports_that_cannot_be_sent_wait_as_one(often: float) -> None:
    orchestrator = Orchestrator(stores=False)
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        for number in range(50):
            progress.say("copying", number)
        never = asyncio.get_running_loop().create_future()
        await asyncio.wait({never}, timeout=3 * often)  # the time is over, and the first is still on its way
        assert orchestrator.reports == ["0% copying"]

        orchestrator.store()
        await eventually(lambda: orchestrator.reports == ["0% copying", "49% copying"])


async def test_a_report_that_is_lost_stops_none_that_follows(often: float) -> None:
    orchestrator = Orchestrator(stores=False)
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        progress.say("one")
        progress.say("two")
        orchestrator.lose()

        await eventually(lambda: orchestrator.reports == ["one", "two"])


async def test_without_a_report_nothing_is_sent() -> None:
    orchestrator = Orchestrator()
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        progress.say("")
        progress.say("\x1b\u200b\n")
        progress.read(b"\n\n \x00 \n")
        progress.finish()

    assert orchestrator.reports == []
    assert not progress.has_sent


@pytest.mark.parametrize(
    ("written", "report"),
    [
        (b"40 copying\n", "40% copying"),
        (b"10 a\n20 b\n30 c", "30% c"),
        (b"10 a\r20 b\r30 c\r", "30% c"),
        (b"10 a\n\n \x00\n", "10% a"),
        (b"\xff\xfe\x00\x01\x80\n55 after garbage\n", "55% after garbage"),
        (b"\xff\xfehalf\x00\x1b[1m\x80", "\ufffd\ufffdhalf[1m\ufffd"),
        ("70 für élan ✓".encode(), "70% für élan ✓"),
    ],
)
async def test_of_what_a_program_wrote_the_last_line_that_says_something_is_reported(
    written: bytes, report: str
) -> None:
    orchestrator = Orchestrator()
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        progress.read(written)

    assert orchestrator.reports == [report]


@pytest.mark.parametrize(
    "said",
    [
        f"using {SECRET} now",
        "x" * 190 + SECRET,  # it would be cut in the middle
        SECRET[:9] + "\x00\u200b" + SECRET[9:],  # whole only once the rest is gone
    ],
)
async def test_secrets_are_hidden_before_a_message_is_cut(said: str) -> None:
    orchestrator = Orchestrator()
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        progress.say(said, 5)
        progress.finish()
    with Progress(orchestrator.hand_in, hidden=hidden) as progress:
        progress.read(f"5 {said}\n".encode())
        progress.finish()

    assert orchestrator.reports[0] == orchestrator.reports[1]
    assert SECRET[:5] not in orchestrator.reports[0]
    assert "[redact" in orchestrator.reports[0]


async def test_a_secret_of_several_lines_is_hidden_in_its_last_one() -> None:
    orchestrator = Orchestrator()
    with Progress(orchestrator.hand_in, hidden=lambda text: text.replace("two\nlines", "[redacted]")) as progress:
        progress.read(b"5 here: two\nlines\n")

    assert orchestrator.reports == ["5% here: [redacted]"]


@pytest.mark.parametrize(("is_its_own", "taken"), [(True, [b"40 copying\n"]), (False, [])])
async def test_a_file_of_others_that_a_program_has_linked_into_its_place_is_not_read(
    tmp_path: Path, is_its_own: bool, taken: list[bytes]
) -> None:
    others, workspace, seen = tmp_path / "others", tmp_path / "work", list[bytes]()
    others.write_text("40 copying\n")
    file_in(workspace).parent.mkdir(parents=True)
    with ProgressFiles() as files:
        async with files.followed(workspace, seen.append):
            if is_its_own:
                file_in(workspace).write_text("40 copying\n")
            else:
                file_in(workspace).hardlink_to(others)

    assert seen == taken
