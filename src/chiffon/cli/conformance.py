"""`chiffon conformance`: try a worker of the queue API and print what it got wrong."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

from cyclopts import Parameter

from chiffon.cli.console import print_json, put, say
from chiffon.cli.options import Flag
from chiffon.cli.outcome import Exit, Usage
from chiffon.client import DEFAULT_SERVER

if TYPE_CHECKING:
    from chiffon.conformance.cases import Case
    from chiffon.conformance.run import Verdict


def conformance(
    *,
    worker: str | None = None,
    manual: Annotated[bool, Flag] = False,
    case: list[str] | None = None,
    list_cases: Annotated[bool, Parameter(name="--list", negative=())] = False,
    lease_seconds: float = 2.0,
    at_once: int = 4,
    as_json: Annotated[bool, Parameter(name="--json", negative=())] = False,
    server: Annotated[str, Parameter(env_var="CHIFFON_SERVER")] = DEFAULT_SERVER,
    token: Annotated[str | None, Parameter(env_var="CHIFFON_TOKEN")] = None,
) -> int:
    """Try a worker of the queue API, in whatever language, and print what it got wrong.

    ```
    chiffon conformance --worker 'python examples/worker.py {server} {worker}'
    chiffon conformance --worker './worker --url {server} --type {type} --lease {lease}' --case killed --case busy
    chiffon conformance --manual
    chiffon conformance --list
    ```

    A proxy stands between the worker and the server, and plays a bad network. What the jobs of the cases ask for is
    told in docs/reference/conformance.md. Exit status 1 when the worker got anything wrong.

    Parameters
    ----------
    worker
        The command that starts the worker. {server}, {worker}, {type} and {lease} are filled in; they are also in
        its environment as QUEUE_SERVER, QUEUE_WORKER_ID, QUEUE_WORK_TYPE and QUEUE_LEASE_SECONDS.
    manual
        Print the address instead, and try a worker that you start; cases that must kill or end it are left out.
    case
        Only this case; can be given several times.
    list_cases
        Print the names of the cases and what a worker promises in each.
    lease_seconds
        The lease that the worker is told to ask for, 1 to 30 seconds.
    at_once
        How many cases run side by side, each with a worker of its own, 1 to 32.
    as_json
        Print one JSON document for each case.
    server
        Address of the orchestrator; one for tests, that no other worker serves.
    token
        An administrator's; with it each worker enrols, and gets its credential as QUEUE_TOKEN.
    """
    from chiffon.conformance.cases import CASES
    from chiffon.conformance.process import CannotStart

    if list_cases:
        for known in CASES:
            put(f"{known.name:18}  {known.promise}")
        return Exit.OK
    if (worker is None) != manual:
        raise Usage("give the command that starts the worker with --worker, or --manual to start it yourself")
    if not 1 <= lease_seconds <= 30:
        raise Usage(f"--lease-seconds is {lease_seconds:g}; it must be from 1 to 30")
    if not 1 <= at_once <= 32:
        raise Usage(f"--at-once is {at_once}; it must be from 1 to 32")
    chosen = _chosen(case)
    try:
        return asyncio.run(
            _run(server, worker, chosen, lease=lease_seconds, at_once=at_once, as_json=as_json, token=token)
        )
    except CannotStart as problem:
        raise Usage(str(problem)) from None


def _chosen(names: list[str] | None) -> "list[Case]":
    from chiffon.conformance.cases import CASES

    unknown = sorted(set(names or ()) - {known.name for known in CASES})
    if unknown:
        raise Usage(f"there is no case {unknown[0]!r}; chiffon conformance --list names them")
    return [known for known in CASES if not names or known.name in names]


async def _run(
    server: str,
    worker: str | None,
    cases: "list[Case]",
    *,
    lease: float,
    at_once: int,
    as_json: bool,
    token: str | None,
) -> int:
    from chiffon.conformance.run import try_worker

    passed = failed = 0
    left_out = [] if worker is not None else [case for case in cases if case.needs_process]
    verdicts = (
        _judge_manual(server, [case for case in cases if not case.needs_process], lease=lease, token=token)
        if worker is None
        else _closing(try_worker(server, worker, cases, lease=lease, at_once=at_once, token=token))
    )
    async with verdicts as played:
        async for verdict in played:
            passed, failed = passed + verdict.passed, failed + (not verdict.passed)
            _print(verdict, as_json=as_json)
    for case in left_out:
        say(f"NOT TRIED  {case.name}: the kit must start the worker for it; use --worker")
    say(f"{passed} passed, {failed} failed" + (f", {len(left_out)} not tried" if left_out else ""))
    return Exit.OK if failed == 0 else Exit.ERROR


@asynccontextmanager
async def _closing(verdicts: "AsyncIterator[Verdict]") -> "AsyncIterator[AsyncIterator[Verdict]]":
    try:
        yield verdicts
    finally:
        await verdicts.aclose()  # type: ignore[attr-defined] # a generator, which ends its cases then


@asynccontextmanager
async def _judge_manual(
    server: str, cases: "list[Case]", *, lease: float, token: str | None
) -> "AsyncIterator[AsyncIterator[Verdict]]":
    from chiffon.conformance.ledger import Ledger
    from chiffon.conformance.proxy import Proxy
    from chiffon.conformance.run import judge_running

    work_type = f"conformance_{uuid4().hex[:12]}"
    async with Ledger(server, token) as ledger, Proxy(server) as proxy:
        worker = await ledger.hire(f"manual-{work_type}")
        say(f"Start your worker now: server {proxy.url}, type {work_type}, lease {lease:g} seconds.")
        if worker.token is not None:
            say(f"It is worker {worker.id}, and sends this with each request: Authorization: Bearer {worker.token}")
        yield judge_running(proxy, ledger, cases, work_type=work_type, lease=lease)


def _print(verdict: "Verdict", *, as_json: bool) -> None:
    if as_json:
        document = {
            "case": verdict.case.name,
            "passed": verdict.passed,
            "seconds": round(verdict.seconds, 1),
            "problems": [{"text": problem.text, "contract": problem.part} for problem in verdict.problems],
        }
        print_json(document)
        return
    put(f"{'PASS' if verdict.passed else 'FAIL'}  {verdict.case.name}: it {verdict.case.promise}")
    for problem in verdict.problems:
        put(f"      {problem.text}", f"        contract: {problem.part}")
    if verdict.problems and verdict.log.strip():
        put("      the worker printed:", *(f"        {line}" for line in verdict.log.splitlines()[-10:]))
