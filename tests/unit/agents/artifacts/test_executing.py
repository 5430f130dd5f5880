"""An executor gets the files of its work before it begins, has some kept when it has ended, and begins where it may."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from agents.attempts.stopping import StopReason
from agents.executors.base import (
    MOST_NAMED,
    ExecutionContext,
    Executor,
    FilesUnavailable,
    Host,
    NotKept,
    Outcome,
)
from agents.executors.enclosure import OPEN, Enclosure, Sandbox
from agents.executors.shell import ShellExecutor
from agents.processes.keepers import Keepers, Launch
from common.confinement import Confinement
from common.errors import ErrorCode
from common.messages import ResultStatus, StepStatus
from common.work import FileReference, WithFiles
from tests.unit.agents.executing import Output, execute, make_context

Do = Callable[[ExecutionContext], Awaitable[Outcome]]


class Scripted(Executor[WithFiles]):
    """Does what the test says."""

    kind: ClassVar[str] = "scripted"
    parameters = WithFiles
    needs_workspace: ClassVar[bool] = True

    def __init__(self, do: Do) -> None:
        self._do = do

    async def carry_out(self, parameters: WithFiles, context: ExecutionContext) -> Outcome:
        return await self._do(context)


class Recorded:
    """A transfer that says what it is asked for; `problems` are what it does not keep."""

    def __init__(self, said: list[str], *, problems: Sequence[str] = ()) -> None:
        self._said = said
        self._problems = problems
        self.failure: Exception | None = None
        self.waits: asyncio.Event | None = None

    async def bring(
        self, files: Mapping[str, FileReference], context: ExecutionContext, *, keeps: bool
    ) -> Mapping[str, Path]:
        self._said.append(f"bring {','.join(files)} {keeps}")
        if self.waits is not None:
            self.waits.set()
            await asyncio.Event().wait()
        if self.failure is not None:
            raise self.failure
        return {name: context.workspace / name for name in files}

    async def collect(self, patterns: Sequence[str], context: ExecutionContext) -> Sequence[str]:
        self._said.append(f"collect {','.join(patterns)}")
        return self._problems


@pytest.fixture
def context(tmp_path: Path, keepers: Keepers) -> ExecutionContext:
    return make_context(tmp_path, keepers, Output())


WORK = {"files": {"a": {"text": "x"}}, "artifacts": ["b", "c/*"]}


@pytest.mark.parametrize("outcome", [Outcome(ResultStatus.COMPLETED), Outcome.failed("It failed.", exit_code=3)])
async def test_files_come_before_the_work_and_are_kept_after_it_also_when_it_failed(
    context: ExecutionContext, outcome: Outcome
) -> None:
    said: list[str] = []

    async def do(seen: ExecutionContext) -> Outcome:
        said.append(f"work {dict(seen.files)}")
        return outcome

    context = replace(context, transfer=Recorded(said))

    assert await execute(Scripted(do), WORK, context) == outcome
    assert said == ["bring a True", f"work { ({'a': context.workspace / 'a'}) }", "collect b,c/*"]


async def test_work_without_files_asks_for_none_and_keeps_none(context: ExecutionContext) -> None:
    said: list[str] = []

    async def do(_: ExecutionContext) -> Outcome:
        return Outcome(ResultStatus.COMPLETED)

    await execute(Scripted(do), {}, replace(context, transfer=Recorded(said)))

    assert said == []


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (1, "Not kept: 'f0': it is a link."),
        (2, "Not kept: 'f0': it is a link; 'f1': it is a link."),
        (MOST_NAMED + 3, f"'f{MOST_NAMED - 1}': it is a link; and 3 more."),
    ],
)
async def test_what_could_not_be_kept_stands_in_the_message_of_what_the_work_achieved(
    context: ExecutionContext, count: int, message: str
) -> None:
    problems = [f"'f{number}': it is a link" for number in range(count)]

    async def succeed(_: ExecutionContext) -> Outcome:
        return Outcome(ResultStatus.COMPLETED, exit_code=0)

    async def fail(_: ExecutionContext) -> Outcome:
        return Outcome.failed("It failed.")

    context = replace(context, transfer=Recorded([], problems=problems))
    completed, failed = await execute(Scripted(succeed), WORK, context), await execute(Scripted(fail), WORK, context)

    assert (completed.status, completed.exit_code) == (ResultStatus.COMPLETED, 0)
    assert str(completed.error_message).endswith(message)
    assert failed.error_message == f"It failed. {completed.error_message}"


@pytest.mark.parametrize(
    ("may_come", "code", "retryable"), [(True, None, True), (False, ErrorCode.INVALID_REQUEST, False)]
)
async def test_work_whose_files_cannot_be_had_does_not_begin(
    context: ExecutionContext, may_come: bool, code: ErrorCode | None, retryable: bool
) -> None:
    said: list[str] = []
    transfer = Recorded(said)
    transfer.failure = FilesUnavailable("There is no such file.", may_come=may_come)

    async def do(_: ExecutionContext) -> Outcome:
        raise AssertionError("it began")

    outcome = await execute(Scripted(do), WORK, replace(context, transfer=transfer))

    assert outcome == Outcome.failed("There is no such file.", code=code, retryable=retryable)
    assert said == ["bring a True"]


async def test_a_stop_while_files_come_begins_nothing(context: ExecutionContext) -> None:
    said: list[str] = []
    transfer = Recorded(said)
    transfer.waits = asyncio.Event()

    async def do(_: ExecutionContext) -> Outcome:
        raise AssertionError("it began")

    working = asyncio.create_task(execute(Scripted(do), WORK, replace(context, transfer=transfer)))
    await transfer.waits.wait()
    context.stop.order(StopReason.CANCELLED, grace=0)

    assert await working == Outcome(ResultStatus.CANCELLED)
    assert said == ["bring a True"]


async def test_work_that_was_stopped_has_nothing_kept_and_says_so(context: ExecutionContext) -> None:
    said: list[str] = []

    async def do(seen: ExecutionContext) -> Outcome:
        seen.stop.order(StopReason.CANCELLED, grace=0)
        await asyncio.Event().wait()
        raise AssertionError

    outcome = await execute(Scripted(do), WORK, replace(context, transfer=Recorded(said)))

    assert outcome.status is ResultStatus.CANCELLED
    assert outcome.error_message == "None of its files were kept, because it was stopped."
    assert said == ["bring a True"]


@pytest.mark.parametrize("given", [{"files": {"a": {"text": ""}}}, {"artifacts": ["a"]}])
async def test_where_there_is_nobody_to_keep_files_work_with_files_is_refused(
    context: ExecutionContext, given: dict[str, Any]
) -> None:
    async def do(_: ExecutionContext) -> Outcome:
        return Outcome(ResultStatus.COMPLETED)

    refused, done = await execute(Scripted(do), given, context), await execute(Scripted(do), {}, context)

    assert (refused.error_code, refused.retryable) == (ErrorCode.INVALID_REQUEST, False)
    assert "neither 'files' nor 'artifacts'" in str(refused.error_message)
    assert done.status is ResultStatus.COMPLETED


async def test_a_context_of_nobody_keeps_reports_and_hides_nothing(context: ExecutionContext) -> None:
    with pytest.raises(NotKept):
        await context.keep("a", context.workspace / "a")
    context.step(0, "build", StepStatus.SUCCEEDED)
    context.hide("a value")


async def test_an_executor_that_does_not_own_its_end_starts_nothing_that_lasts(context: ExecutionContext) -> None:
    with pytest.raises(RuntimeError, match="owns_its_end"):
        await context.lasting.start(Launch(["/bin/true"], ["true"], {}, "/"), [])


async def run_in(
    context: ExecutionContext, cwd: str, *allowed: Path, files: Mapping[str, Any] | None = None
) -> tuple[Outcome, str]:
    """Return how a script ended that says where it is, and what it wrote."""
    output = Output()
    parameters = {"script": "pwd -P; cat", "stdin": "in", "cwd": cwd, "files": files or {}}
    executor = ShellExecutor.offer(Host(cwd_allow=allowed))
    outcome = await execute(executor, parameters, replace(context, write=output.write, transfer=Recorded([])))
    return outcome, output.text


@pytest.mark.parametrize("cwd", [".", "src", "src/deep/er", "src//x/./y"])
async def test_a_relative_directory_is_made_in_the_workspace(context: ExecutionContext, cwd: str) -> None:
    outcome, output = await run_in(context, cwd)

    assert outcome == Outcome(ResultStatus.COMPLETED, exit_code=0)
    assert output == f"{context.workspace / cwd}\nin"


async def test_a_file_is_no_directory_to_begin_in(context: ExecutionContext) -> None:
    (context.workspace / "src").write_bytes(b"")

    outcome, _ = await run_in(context, "src/deep")

    assert outcome.error_code == ErrorCode.INVALID_REQUEST
    assert "the workspace has a file of that name" in str(outcome.error_message)


async def test_a_name_that_is_too_long_is_no_directory_to_begin_in(context: ExecutionContext, tmp_path: Path) -> None:
    for cwd in ("x" * 300, f"{tmp_path}/{'x' * 300}"):
        outcome, _ = await run_in(context, cwd, tmp_path)

        assert outcome.error_code == ErrorCode.INVALID_REQUEST


async def test_a_link_to_itself_is_no_directory_to_begin_in(context: ExecutionContext, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")

    outcome, _ = await run_in(context, f"{tmp_path}/loop", tmp_path)

    assert outcome.error_code == ErrorCode.INVALID_REQUEST


@pytest.fixture
def srv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of the host, with an inner one, a link inside and two that lead out."""
    srv = tmp_path_factory.mktemp("host") / "srv"
    (srv / "app").mkdir(parents=True)
    (srv.parent / "other").mkdir()
    (srv / "inside").symlink_to("app")
    (srv / "out").symlink_to(srv.parent / "other")
    (srv / "up").symlink_to("..")
    (srv / "file").write_bytes(b"")
    return srv


@pytest.mark.parametrize(("name", "real"), [("", "."), ("app", "app"), ("inside", "app"), ("./app", "app")])
async def test_work_begins_in_a_directory_of_the_host_that_its_settings_allow(
    context: ExecutionContext, srv: Path, name: str, real: str
) -> None:
    outcome, output = await run_in(context, f"{srv}/{name}", srv)

    assert outcome == Outcome(ResultStatus.COMPLETED, exit_code=0)
    assert output == f"{srv / real}\nin"
    assert sorted(path.name for path in srv.iterdir()) == ["app", "file", "inside", "out", "up"]


@pytest.mark.parametrize("name", ["out", "up", "up/other", "../other", "../srv2", "missing/../../other"])
async def test_no_directory_beyond_is_entered_by_whatever_name(context: ExecutionContext, srv: Path, name: str) -> None:
    (srv.parent / "srv2").mkdir()
    directory = f"{srv}/{name}"

    outcome, output = await run_in(context, directory, srv)

    assert (outcome.status, outcome.error_code) == (ResultStatus.FAILED, ErrorCode.INVALID_REQUEST)
    assert output == ""
    assert ".." in directory or "the cwd_allow of this agent" in str(outcome.error_message)


async def test_a_directory_is_refused_where_the_settings_allow_none(context: ExecutionContext, srv: Path) -> None:
    outcome, _ = await run_in(context, str(srv))

    assert outcome.error_message == f"cwd: {str(srv)!r} is in no directory that the cwd_allow of this agent names."


@pytest.mark.parametrize("name", ["missing", "file", "file/x"])
async def test_what_is_no_directory_is_said(context: ExecutionContext, srv: Path, name: str) -> None:
    outcome, _ = await run_in(context, f"{srv}/{name}", srv)

    assert outcome.error_message == f"cwd: there is no directory '{srv}/{name}' on this host."


async def test_whether_a_directory_is_there_is_not_told_of_those_that_are_not_allowed(
    context: ExecutionContext, srv: Path
) -> None:
    there, not_there = await run_in(context, str(srv.parent), srv), await run_in(context, f"{srv.parent}/no", srv)

    (srv.parent / "srv2").mkdir()
    beside = await run_in(context, f"{srv}2", srv)

    assert "in no directory" in str(there[0].error_message)
    assert "in no directory" in str(beside[0].error_message)
    assert "in no directory" in str(not_there[0].error_message)


def sandboxed(**shown: Any) -> Enclosure:
    return replace(OPEN, confinement=Confinement(sandbox=True), sandbox=Sandbox("/no/bwrap", **shown))


async def test_a_directory_that_the_sandbox_does_not_show_is_refused(context: ExecutionContext, srv: Path) -> None:
    outcome, _ = await run_in(replace(context, enclosure=sandboxed()), str(srv), srv)

    assert f"the sandbox shows nothing of {str(srv)!r}" in str(outcome.error_message)


@pytest.mark.parametrize("how", ["readable", "writable"])
async def test_a_program_in_the_sandbox_begins_in_a_directory_that_it_shows(
    context: ExecutionContext, srv: Path, tmp_path: Path, how: str
) -> None:
    bubblewrap = tmp_path / "bwrap"
    bubblewrap.write_text('#!/bin/sh\necho "$@"')
    bubblewrap.chmod(0o755)
    enclosure = sandboxed(**{how: (srv,)})
    assert enclosure.sandbox is not None
    enclosure = replace(enclosure, sandbox=replace(enclosure.sandbox, bubblewrap=str(bubblewrap)))

    outcome, output = await run_in(replace(context, enclosure=enclosure), f"{srv}/app", srv)

    assert outcome.status is ResultStatus.COMPLETED
    assert f"--chdir {srv}/app -- /bin/sh" in output
    assert f"--bind {tmp_path} {tmp_path}" in output


async def test_a_program_reaches_its_files_from_where_it_begins(context: ExecutionContext) -> None:
    class Placing(Recorded):
        async def bring(
            self, files: Mapping[str, FileReference], context: ExecutionContext, *, keeps: bool
        ) -> Mapping[str, Path]:
            (context.workspace / "src").mkdir()
            os.close(os.open(context.workspace / "src" / "tool", os.O_CREAT | os.O_WRONLY, 0o755))
            (context.workspace / "src" / "tool").write_text("#!/bin/sh\necho tool")
            return {}

    output = Output()
    context = replace(context, write=output.write, transfer=Placing([]))

    work = {"argv": ["./tool"], "cwd": "src", "files": {"src/tool": {"text": ""}}}
    outcome = await execute(ShellExecutor(), work, context)

    assert outcome.status is ResultStatus.COMPLETED, outcome
    assert output.text == "tool\n"
