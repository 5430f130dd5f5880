"""The conformance kit tells a worker that keeps the contract from one that does not."""

import asyncio
import json
import re
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from chiffon.client import Client
from chiffon.conformance.cases import CASES
from chiffon.conformance.run import Verdict, try_worker
from chiffon.conformance.stage import Patience
from common.rest.identities import PrincipalKind
from orchestrator.database.pool import Pool
from orchestrator.identities.service import IdentityService
from tests.integration.conformance.conftest import LEASE, worker_command
from tests.integration.conformance.wrong_workers import EXAMPLE, WRONG_WORKERS, WrongWorker
from tests.integration.system.deployment import open_system

pytestmark = pytest.mark.timeout(240)
IMPATIENT = Patience(begin=6, put_back=6, leave=3)


async def _verdict_on(worker: WrongWorker, server: str, folder: Path) -> Verdict:
    program = folder / f"{worker.case}.py"
    program.write_text(worker.program())
    case = [case for case in CASES if case.name == worker.case]
    tried = try_worker(server, worker_command(program), case, lease=LEASE, at_once=1, patience=IMPATIENT)
    [verdict] = [verdict async for verdict in tried]
    return verdict


@pytest.mark.timeout(400)
async def test_the_example_in_plain_python_passes_every_case(server: str) -> None:
    # Long enough that a worker renews in time, and begins, also where others want the processors.
    patient = Patience(begin=60, put_back=90, leave=60)
    tried = try_worker(server, worker_command(EXAMPLE), CASES, lease=4 * LEASE, at_once=6, patience=patient)

    verdicts = [verdict async for verdict in tried]

    assert [verdict.case for verdict in verdicts] == list(CASES)
    wrong = {verdict.case.name: (verdict.problems, verdict.log) for verdict in verdicts if not verdict.passed}
    assert not wrong


async def test_where_the_server_asks_who_one_is_each_worker_enrols_and_is_shut_out_at_the_end(
    ledger_url: str, pool: Pool, tmp_path: Path
) -> None:
    chosen = [case for case in CASES if case.name in {"completes", "frozen"}]
    identities = IdentityService(pool)
    token = (await identities.bootstrap("ann")).secret
    async with open_system(ledger_url, ledger_url, tmp_path, lease_seconds=1, authentication="required") as system:
        url = f"http://127.0.0.1:{system.settings.port}"
        tried = try_worker(url, worker_command(EXAMPLE), chosen, lease=LEASE, at_once=2, token=token)

        verdicts = [verdict async for verdict in tried]

    assert [(verdict.case.name, verdict.problems) for verdict in verdicts] == [(case.name, ()) for case in chosen]
    workers = [one for one in await identities.everybody() if one.kind is PrincipalKind.AGENT]
    assert len(workers) == 3  # one for each case, and the rival
    assert all(worker.disabled_at is not None for worker in workers)


async def test_every_way_to_be_wrong_fails_the_case_that_is_about_it(server: str, tmp_path: Path) -> None:
    # A worker that is starved of the processor asks seldom, however wrong it is.
    places = asyncio.Semaphore(6)

    async def tried(worker: WrongWorker) -> Verdict:
        async with places:
            return await _verdict_on(worker, server, tmp_path)

    verdicts = await asyncio.gather(*(tried(worker) for worker in WRONG_WORKERS))

    unnoticed = [worker.wrong for worker, verdict in zip(WRONG_WORKERS, verdicts, strict=True) if verdict.passed]
    assert not unnoticed


def test_every_case_has_a_worker_that_fails_it() -> None:
    assert {case.name for case in CASES} == {worker.case for worker in WRONG_WORKERS}


async def test_the_command_prints_a_line_for_each_case_and_its_status_says_whether_all_passed(
    server: str, tmp_path: Path
) -> None:
    doubling = tmp_path / "doubling.py"
    doubling.write_text(WRONG_WORKERS[0].program())

    fine = await _run_command(server, EXAMPLE, "--case", "completes", "--case", "unknown-fields")
    wrong = await _run_command(server, doubling, "--case", "completes")

    assert fine[0] == 0, fine
    assert [line.split(":")[0] for line in fine[1].splitlines()] == ["PASS  completes", "PASS  unknown-fields"]
    assert wrong[0] == 1, wrong
    assert wrong[1].startswith("FAIL  completes: it takes a job")
    assert "it said complete for attempt 1, whose complete was answered 200" in wrong[1]
    assert "contract: two claims never get the same job, and each attempt has one end" in wrong[1]


async def test_a_worker_that_somebody_else_starts_is_tried_too(server: str) -> None:
    names = ("completes", "killed", "lost-claim", "busy")
    arguments = ("--manual", "--json", *(word for name in names for word in ("--case", name)))
    kit = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chiffon", "conformance", "--server", server, *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert kit.stderr is not None
    told = re.search(r"server (\S+), type (\S+), lease (\S+) seconds", (await kit.stderr.readline()).decode())
    assert told is not None
    environment = {"QUEUE_WORK_TYPE": told[2], "QUEUE_LEASE_SECONDS": told[3]}
    worker = await asyncio.create_subprocess_exec(sys.executable, str(EXAMPLE), told[1], env=environment)
    try:
        printed, said = await kit.communicate()
    finally:
        worker.kill()
        await worker.wait()

    verdicts = [json.loads(line) for line in printed.splitlines()]
    assert [(one["case"], one["passed"], one["problems"]) for one in verdicts] == [
        (name, True, []) for name in names if name != "killed"
    ]
    assert b"NOT TRIED  killed" in said
    assert kit.returncode == 0


async def test_the_example_says_how_far_it_is(server: str) -> None:
    work_type, job = f"reports-{uuid4()}", {"do": "sleep", "seconds": 2.5, "text": "rested"}
    environment = {"QUEUE_WORK_TYPE": work_type, "QUEUE_LEASE_SECONDS": "30"}
    async with Client(server) as client:
        made = await client.http.post("/api/queue/jobs", {"type": work_type, "payload": job}, repeatable=False)
        worker = await asyncio.create_subprocess_exec(sys.executable, str(EXAMPLE), server, env=environment)
        try:
            task = await client.wait(made["id"])
        finally:
            worker.kill()
            await worker.wait()
        events = (await client.events(made["id"])).items

    reports = [str(event.data["progress"]) for event in events if event.kind == "task.progress"]
    assert (task.status, task.output, task.progress) == ("completed", "rested", reports[-1])
    assert 1 <= len(reports) <= 2
    assert re.fullmatch(r"[0-9]{2}% slept for [12] of 2.5 seconds", reports[0])
    assert task.percent == int(reports[-1].partition("%")[0])


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--worker", "true", "--case", "nonsense"), "there is no case 'nonsense'"),
        ((), "give the command that starts the worker with --worker"),
        (("--worker", "true", "--manual"), "or --manual to start it yourself"),
        (("--worker", "no-such-program-anywhere"), "--worker cannot be started"),
        (("--worker", "'open"), "--worker cannot be read"),
        (("--worker", "true", "--lease-seconds", "0.5"), "--lease-seconds is 0.5; it must be from 1 to 30"),
        (("--worker", "true", "--at-once", "0"), "--at-once is 0; it must be from 1 to 32"),
    ],
)
async def test_a_command_line_that_cannot_be_followed_is_explained(
    server: str, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], problem: str
) -> None:
    status = await asyncio.to_thread(run, ["conformance", "--server", server, *options])

    assert status == Exit.USAGE
    assert problem in capsys.readouterr().err


async def _run_command(server: str, program: Path, *options: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chiffon", "conformance", "--server", server, "--worker", worker_command(program)),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()
