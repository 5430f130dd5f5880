"""Play the cases: those of a worker that the kit starts side by side, those of somebody else's one after another."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

from chiffon.conformance.cases import Case
from chiffon.conformance.ledger import Hand, Ledger
from chiffon.conformance.process import WorkerProcess, command
from chiffon.conformance.proxy import Proxy
from chiffon.conformance.stage import Patience, Stage
from chiffon.conformance.verdicts import CaseOver, Problem, judge

LONGEST_LOG = 2000
# What a worker still says when a case is over belongs to it: an end said twice, or a word after a refusal.
AFTERWARDS = 0.3
PATIENCE = Patience()


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a worker did in one case: it passed if there is no problem. `log` is the end of what it printed."""

    case: Case
    problems: tuple[Problem, ...]
    seconds: float
    log: str = ""

    @property
    def passed(self) -> bool:
        return not self.problems


async def try_worker(
    server: str,
    template: str,
    cases: Sequence[Case],
    *,
    lease: float,
    at_once: int,
    patience: Patience = PATIENCE,
    token: str | None = None,
) -> AsyncIterator[Verdict]:
    """Start the worker anew for each case, and yield the verdicts in the order of the cases.

    Raises `CannotStart` for a command that cannot be run, `ServerUnreachable` and `ApiError` when the server fails.
    """
    places = asyncio.Semaphore(at_once)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="conformance-")))
        ledger = await stack.enter_async_context(Ledger(server, token))

        async def play(case: Case) -> Verdict:
            async with places, Proxy(server) as proxy:
                (own := folder / case.name).mkdir()
                work_type = f"conformance_{uuid4().hex[:12]}"
                values = _values(proxy, work_type, lease, await ledger.hire(f"{case.name}-{work_type}"))
                process = WorkerProcess(command(template, values), values, own / "log")
                stage = Stage(ledger, proxy, process, work_type=work_type, lease=lease, folder=own, patience=patience)
                return await _play(case, stage, proxy, process)

        playing = [asyncio.create_task(play(case)) for case in cases]
        try:
            for one in playing:
                yield await one
        finally:
            for one in playing:
                one.cancel()
            await asyncio.gather(*playing, return_exceptions=True)


async def judge_running(
    proxy: Proxy, ledger: Ledger, cases: Sequence[Case], *, work_type: str, lease: float
) -> AsyncIterator[Verdict]:
    """Play the cases with a worker that somebody else has started, and yield the verdicts."""
    with TemporaryDirectory(prefix="conformance-") as folder:
        for case in cases:
            # A claim that waited would pass by the faults of the next case.
            await proxy.cut_all()
            proxy.clear()
            yield await _play(
                case,
                Stage(ledger, proxy, None, work_type=work_type, lease=lease, folder=Path(folder), patience=PATIENCE),
                proxy,
                None,
            )


def _values(proxy: Proxy, work_type: str, lease: float, worker: Hand) -> Mapping[str, str]:
    known = {} if worker.token is None else {"token": worker.token}
    return {"server": proxy.url, "worker": worker.id, "type": work_type, "lease": f"{lease:g}", **known}


async def _play(case: Case, stage: Stage, proxy: Proxy, process: WorkerProcess | None) -> Verdict:
    began = time.monotonic()
    try:
        await case.play(stage)
        await asyncio.sleep(AFTERWARDS)
    except CaseOver as over:
        stage.problems.append(over.problem)
    finally:
        await stage.clear()
    problems = tuple(dict.fromkeys([*stage.problems, *judge(proxy.traffic)]))
    log = "" if process is None else process.log[-LONGEST_LOG:]
    return Verdict(case, problems, time.monotonic() - began, log)
