"""An executor that gets files, keeps some and reports steps needs no module but `chiffon.executors`."""

import hashlib
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import chiffon.executors
from agents.processes.keepers import Keepers
from chiffon.executors import (
    ExecutionContext,
    Executor,
    Kept,
    NotKept,
    Outcome,
    ResultStatus,
    StepStatus,
    WithFiles,
)
from tests.unit.agents.executing import Output, execute, make_context


class SummariseParameters(WithFiles):
    """Add up the sizes of some files."""

    report: str = "report.txt"


class Summarise(Executor[SummariseParameters]):
    kind = "summarise"
    parameters = SummariseParameters
    needs_workspace = True

    async def carry_out(self, parameters: SummariseParameters, context: ExecutionContext) -> Outcome:
        report = context.workspace / "report"
        report.write_text("".join(f"{name} {path.stat().st_size}\n" for name, path in context.files.items()))
        try:
            kept: Kept = await context.keep(parameters.report, report)
        except NotKept as reason:
            context.step(0, "report", StepStatus.FAILED, str(reason))
            return Outcome.failed(f"{parameters.report}: {reason}")
        context.step(0, "report", StepStatus.SUCCEEDED)
        return Outcome(ResultStatus.COMPLETED, result={"sha256": kept.sha256, "size": kept.size})


class Files:
    """Writes texts into the workspace, and keeps files called something else than `refused`."""

    def __init__(self) -> None:
        self.collected: list[Sequence[str]] = []
        self.steps: list[tuple[int, str, StepStatus, str]] = []

    async def bring(self, files: Mapping[str, Any], context: ExecutionContext, *, keeps: bool) -> Mapping[str, Path]:
        for name, reference in files.items():
            (context.workspace / name).write_text(reference.text)
        return {name: context.workspace / name for name in files}

    async def collect(self, patterns: Sequence[str], _context: ExecutionContext) -> Sequence[str]:
        self.collected.append(patterns)
        return []

    async def keep(self, name: str, path: Path, _type: str = "file") -> Kept:
        if name == "refused":
            raise NotKept("it holds a secret")
        content = path.read_bytes()
        return Kept(name, hashlib.sha256(content).hexdigest(), len(content))

    def step(self, position: int, name: str, status: StepStatus, message: str = "", *_times: Any) -> None:
        self.steps.append((position, name, status, message))


@pytest.fixture
def files() -> Files:
    return Files()


@pytest.fixture
def context(tmp_path: Path, keepers: Keepers, files: Files) -> ExecutionContext:
    return make_context(tmp_path, keepers, Output(), transfer=files, keep=files.keep, step=files.step)


async def test_it_finds_its_files_and_says_what_it_kept(context: ExecutionContext, files: Files) -> None:
    given = {"files": {"a": {"text": "four"}, "b": {"text": ""}}, "artifacts": ["*.log"]}

    outcome = await execute(Summarise(), given, context)

    content = b"a 4\nb 0\n"
    assert (outcome.status, outcome.result) == (
        ResultStatus.COMPLETED,
        {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)},
    )
    assert files.collected == [["*.log"]]
    assert files.steps == [(0, "report", StepStatus.SUCCEEDED, "")]


async def test_it_learns_why_a_file_is_not_kept(context: ExecutionContext, files: Files) -> None:
    outcome = await execute(Summarise(), {"report": "refused"}, context)

    assert (outcome.status, outcome.error_message) == (ResultStatus.FAILED, "refused: it holds a secret")
    assert files.steps == [(0, "report", StepStatus.FAILED, "it holds a secret")]


def test_all_that_the_module_offers_is_told_and_nothing_else_is_public() -> None:
    offered = {name for name, value in vars(chiffon.executors).items() if inspect.isclass(value)}

    assert set(chiffon.executors.__all__) == offered
    assert {"WithFiles", "Kept", "NotKept", "StepStatus"} <= offered
