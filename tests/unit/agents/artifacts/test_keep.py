"""An attempt gets the files that it asked for, and those that it leaves are kept, without its secrets."""

import asyncio
import errno
import os
import threading
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from agents.artifacts import keep as keep_
from agents.artifacts.keep import AttemptFiles, Files
from agents.artifacts.sender import ArtifactSender
from agents.artifacts.wants import Wants
from agents.attempts.stopping import StopReason
from agents.executors.base import ExecutionContext, FilesUnavailable, Kept, NotKept
from agents.executors.enclosure import OPEN, User
from agents.link.reporter import Reporter
from agents.processes.keepers import Keepers
from common.broker.base import Outgoing
from common.broker.memory import MemoryBroker
from common.broker.topology import REPLY_QUEUES
from common.clock import SystemClock
from common.loop import Health
from common.messages import ArtifactPiece, WantFile, WorkStatus
from common.orders import FilePiece
from common.protocol import decode
from common.redaction.values import Values
from common.work import FileReference
from tests.factories import make_credit
from tests.unit.agents.artifacts.making import AGENT, LIMIT, make_owner, make_spool, owed
from tests.unit.agents.executing import Output, make_context

SECRET = "s3cret-of-the-host-0123456789"


class Orchestrator(MemoryBroker):
    """Takes what is kept, and sends what it has under the paths that work gives its files."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[ArtifactPiece] = []
        self.files: dict[str, bytes] = {}
        self.taker: Callable[[FilePiece], None] = lambda _: None

    async def publish(self, *messages: Outgoing) -> None:
        for message in messages:
            match decode(message.body).payload:
                case WorkStatus(pieces=pieces):
                    self.pieces += pieces
                case WantFile() as want:
                    asyncio.get_running_loop().call_soon(self.taker, self._answer(want))
                case other:
                    raise AssertionError(other)

    def _answer(self, want: WantFile) -> FilePiece:
        content = self.files.get(want.path)
        if content is None:
            return FilePiece(want_id=want.want_id, problem="The task kept no file of that name.")
        data = b64encode(content[want.offset : want.offset + 1000]).decode()
        digest = sha256(content).hexdigest()
        return FilePiece(want_id=want.want_id, offset=want.offset, data=data, size=len(content), sha256=digest)


class Attempt:
    def __init__(self, files: AttemptFiles, context: ExecutionContext, orchestrator: Orchestrator) -> None:
        self.files = files
        self.context = context
        self.orchestrator = orchestrator

    @property
    def workspace(self) -> Path:
        return self.context.workspace

    def write(self, name: str, content: bytes = b"content") -> Path:
        path = self.workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    async def bring(self, files: Mapping[str, Any], **changes: Any) -> Mapping[str, Path]:
        references = {path: FileReference.model_validate(given) for path, given in files.items()}
        return await self.files.bring(references, replace(self.context, **changes), keeps=False)

    async def collect(self, *patterns: str, **changes: Any) -> list[str]:
        return list(await self.files.collect(patterns, replace(self.context, **changes)))

    def sent(self) -> dict[str, bytes]:
        return {piece.name: piece.raw for piece in self.orchestrator.pieces}


Open = Callable[..., AbstractAsyncContextManager[Attempt]]


@pytest.fixture
def attempt(tmp_path: Path) -> Open:
    @asynccontextmanager
    async def opened(*, limit: int = LIMIT, give_up: float = 10.0) -> AsyncIterator[Attempt]:
        orchestrator, spool = Orchestrator(), make_spool(tmp_path, limit=limit)
        await orchestrator.declare(*REPLY_QUEUES)
        workspace = tmp_path / "workspace"
        workspace.mkdir(exist_ok=True)
        async with (
            Reporter(orchestrator, AGENT, make_credit) as reporter,
            ArtifactSender(
                spool, reporter, AGENT, SystemClock(), resend_after=timedelta(minutes=1), health=Health()
            ) as sender,
        ):
            wants = Wants(reporter, AGENT, limit=limit, give_up_after=timedelta(seconds=give_up))
            orchestrator.taker = wants.take
            files = Files(spool, sender, wants).of(make_owner(), Values([SECRET]))
            with Keepers() as keepers:
                yield Attempt(files, make_context(workspace, keepers, Output()), orchestrator)

    return opened


async def test_what_the_patterns_name_is_kept_and_sent(attempt: Open) -> None:
    async with attempt() as it:
        it.write("dist/a.whl", b"\x00wheel")
        it.write("report.txt", b"fine")
        it.write("other")

        assert await it.collect("dist/*.whl", "report.txt") == []
        assert it.files.has_kept
        await it.files.sent()

        assert it.files.are_sent
        assert it.sent() == {"dist/a.whl": b"\x00wheel", "report.txt": b"fine"}


async def test_an_attempt_that_keeps_nothing_waits_for_nothing(attempt: Open) -> None:
    async with attempt() as it:
        assert not it.files.has_kept
        assert it.files.are_sent
        await it.files.sent()


async def test_what_could_not_be_kept_is_said_and_holds_up_nothing(attempt: Open) -> None:
    async with attempt(limit=100) as it:
        it.write("a.txt")
        it.write("b.bin", b"\x00" + SECRET.encode())
        it.write("c.log", b"x" * 101)
        (it.workspace / "d.lnk").symlink_to("/etc/passwd")
        it.write("e\n.x")
        it.write("z.txt", b"end")

        problems = await it.collect("*", "missing")

        await it.files.sent()
        assert set(it.sent()) == {"a.txt", "z.txt"}
        assert [problem.split(": ")[0] for problem in problems] == [
            "'b.bin'", "'c.log'", "'d.lnk'", r"'e\n.x'", "'missing'"
        ]  # fmt: skip
        for problem, said in zip(
            problems, ["secret of this host", "max_artifact_bytes", "a link", "control", "no such file"], strict=True
        ):
            assert said in problem


async def test_secrets_are_hidden_in_what_is_kept(attempt: Open, tmp_path: Path) -> None:
    async with attempt() as it:
        it.write("log", f"password is {SECRET}\n".encode())

        assert await it.collect("log") == []
        await it.files.sent()

        assert it.sent() == {"log": b"password is [redacted]\n"}
    spooled = [path.read_bytes() for path in (tmp_path / "artifacts").iterdir()]
    assert not any(SECRET.encode() in content for content in spooled)


@pytest.mark.parametrize("name", [SECRET, f"dist/{SECRET}.txt", "ghp_0123456789abcdefghijABCDEFGHIJ"])
async def test_a_file_whose_name_tells_a_secret_is_not_kept(attempt: Open, tmp_path: Path, name: str) -> None:
    async with attempt() as it:
        it.write(name)

        [problem] = await it.collect("**")
        assert problem.endswith("its name holds a secret")
        with pytest.raises(NotKept, match="its name holds a secret"):
            await it.files.keep(name, it.workspace / name)

        assert owed(tmp_path) == []


async def test_an_executor_keeps_a_file_by_a_name_of_its_own(attempt: Open, tmp_path: Path) -> None:
    path = tmp_path / "build.log"
    path.write_bytes(b"built\n")
    async with attempt() as it:
        kept = await it.files.keep("build.log", path, "build_log")
        path.write_bytes(b"changed")
        await it.files.sent()

        assert kept == Kept("build.log", sha256(b"built\n").hexdigest(), 6)
        [piece] = it.orchestrator.pieces
        assert (piece.name, piece.type, piece.raw, piece.sha256) == ("build.log", "build_log", b"built\n", kept.sha256)
        with pytest.raises(NotKept, match="another file of that name"):
            await it.files.keep("build.log", path, "build_log")


@pytest.mark.parametrize(
    ("name", "path", "reason"),
    [
        ("../x", "file", "its name must be a relative path"),
        ("/x", "file", "its name must be a relative path"),
        ("", "file", "its name must have 1 to 255 bytes"),
        ("x", "missing", "there is no such file"),
        ("x", "link", "it is a link"),
        ("x", "fifo", "it is no regular file"),
        ("x", "hard", "hard link"),
        ("x", ".", "it is no regular file"),
    ],
)
async def test_what_an_executor_cannot_keep_is_told_to_it(
    attempt: Open, tmp_path: Path, name: str, path: str, reason: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "hard").write_bytes(b"")
    (tmp_path / "hard.2").hardlink_to(tmp_path / "hard")
    async with attempt() as it:
        with pytest.raises(NotKept, match=reason):
            await it.files.keep(name, tmp_path / path)

        assert not it.files.has_kept


async def test_a_full_disk_is_said_and_loses_nothing_else(attempt: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with attempt() as it:
        it.write("a"), it.write("b")
        with monkeypatch.context() as patched:
            patched.setattr("agents.artifacts.copying.write_all", fail)
            problems = await it.collect("*")

        assert problems == [f"'{name}': it cannot be kept: No space left on device" for name in ("a", "b")]
        assert await it.collect("*") == []


async def test_a_workspace_that_is_gone_is_said(attempt: Open) -> None:
    async with attempt() as it:
        it.workspace.rmdir()

        assert await it.collect("*") == ["the rest of the workspace: it cannot be read: No such file or directory"]


async def test_a_stop_ends_the_keeping_after_the_file_that_is_being_kept(
    attempt: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, goes_on = threading.Event(), threading.Event()

    def slowly(*given: Any, **named: Any) -> Any:
        began.set()
        assert goes_on.wait(10)
        return open_regular(*given, **named)

    open_regular = keep_.AttemptFiles._keep_open
    monkeypatch.setattr(keep_.AttemptFiles, "_keep_open", slowly)
    async with attempt() as it:
        for name in ("a", "b", "c"):
            it.write(name)
        collecting = asyncio.create_task(it.collect("*"))
        assert await asyncio.to_thread(began.wait, 10)
        it.context.stop.order(StopReason.LEASE_LOST, grace=1)
        goes_on.set()

        assert await collecting == ["'b' and those after it: the work was stopped"]
        await it.files.sent()
        assert set(it.sent()) == {"a"}


async def test_files_are_put_where_the_work_says(attempt: Open) -> None:
    async with attempt() as it:
        it.orchestrator.files = {"in/data.bin": b"\x00data" * 1000, "lib.whl": b"wheel"}

        places = await it.bring(
            {
                "in/deep/a.txt": {"text": "ä\n"},
                "empty": {"text": ""},
                "in/data.bin": {"upload": sha256(b"\x00data" * 1000).hexdigest()},
                "lib.whl": {"task": str(UUID(int=5)), "artifact": "dist/lib.whl"},
            }
        )

        assert {name: path.read_bytes() for name, path in places.items()} == {
            "in/deep/a.txt": "ä\n".encode(),
            "empty": b"",
            "in/data.bin": b"\x00data" * 1000,
            "lib.whl": b"wheel",
        }
        assert all(path == it.workspace / name for name, path in places.items())


@pytest.mark.parametrize(
    ("reference", "said", "may_come"),
    [
        ({"task": str(UUID(int=5)), "artifact": "b"}, "The task kept no file of that name.", True),
        ({"upload": "0" * 64}, f"and not {'0' * 64}.", True),
    ],
)
async def test_a_file_that_cannot_be_had_is_named(
    attempt: Open, reference: dict[str, str], said: str, may_come: bool
) -> None:
    async with attempt() as it:
        if "upload" in reference:
            it.orchestrator.files["in/a"] = b"other"

        with pytest.raises(FilesUnavailable) as problem:
            await it.bring({"in/a": reference})

        assert str(problem.value).startswith("The work cannot have its file 'in/a': ")
        assert str(problem.value).endswith(said)
        assert problem.value.may_come is may_come


async def test_files_belong_to_whoever_the_program_runs_as(attempt: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[Path, tuple[int, int]] = {}
    monkeypatch.setattr(os, "chown", lambda path, uid, gid, **_: given.update({Path(path): (uid, gid)}))
    user = User("nobody", 65534, 65533, (), "/")
    async with attempt() as it:
        await it.bring({"in/deep/a": {"text": ""}, "b": {"text": ""}}, enclosure=replace(OPEN, user=user))

        assert given == {it.workspace / name: (65534, 65533) for name in ("in", "in/deep", "in/deep/a", "b")}


async def test_only_files_of_whoever_the_program_runs_as_are_kept(attempt: Open) -> None:
    user = User("nobody", os.geteuid() + 1, 65533, (), "/")
    async with attempt() as it:
        it.write("a")

        assert await it.collect("a", enclosure=replace(OPEN, user=user)) == ["'a': it belongs to another user"]
