"""`chiffon audit verify` on a real ledger: what it prints and its exit status."""

import asyncio
import json
from pathlib import Path

import pytest

from chiffon.cli.app import run
from chiffon.cli.outcome import Exit
from common.clock import SystemClock
from common.signing.keys import PrivateKey
from orchestrator.audit.checkpoint_file import CheckpointFile
from orchestrator.database.pool import Connection, Pool
from orchestrator.loops.write_checkpoints import WriteCheckpoints
from orchestrator.signing.directory import add_key, retire_key
from tests.hand_made_jws import base64url, decoded
from tests.integration.audit.conftest import work


@pytest.fixture
def signing(tmp_path: Path) -> tuple[Path, PrivateKey]:
    directory = tmp_path / "keys"
    return directory, add_key(directory, signs_from=SystemClock().now())


@pytest.fixture
async def checkpoints(worked: Pool, tmp_path: Path, signing: tuple[Path, PrivateKey]) -> Path:
    file = CheckpointFile(tmp_path / "checkpoints.jws")
    await WriteCheckpoints(worked, file, lambda: signing[1], SystemClock(), last=file.open()).run_once()
    return file.path


async def verify(url: str, *options: str) -> int:
    return await asyncio.to_thread(run, ["audit", "verify", "--database-url", url, *options])


async def test_a_log_in_order_is_said_to_be_so(
    ledger_url: str, checkpoints: Path, signing: tuple[Path, PrivateKey], capfd: pytest.CaptureFixture[str]
) -> None:
    keys = checkpoints.parent / "trusted.pem"
    keys.write_bytes(signing[1].public.pem())

    assert await verify(ledger_url, "--checkpoints", str(checkpoints), "--keys", str(keys)) == Exit.OK
    printed = capfd.readouterr().out
    assert "1 checkpoints, all signed; the last is of event 16" in printed
    assert "In order." in printed

    assert await verify(ledger_url) == Exit.OK
    assert "No checkpoints were given" in capfd.readouterr().out


async def test_the_first_event_that_was_touched_is_named(
    owner: Connection, ledger_url: str, capfd: pytest.CaptureFixture[str]
) -> None:
    await owner.execute("UPDATE event SET actor = 'another' WHERE seq = 5")

    assert await verify(ledger_url) == Exit.ERROR
    assert "NOT IN ORDER: event 5: edited" in capfd.readouterr().out
    assert await verify(ledger_url, "-o", "json") == Exit.ERROR
    report = json.loads(capfd.readouterr().out)
    assert (report["in_order"], report["finding"]["flaw"], report["finding"]["seq"]) == (False, "edited", 5)


async def test_checkpoints_of_a_key_that_was_retired_are_still_believed(
    worked: Pool, ledger_url: str, checkpoints: Path, signing: tuple[Path, PrivateKey]
) -> None:
    directory, old = signing
    new = add_key(directory, signs_from=SystemClock().now())
    retire_key(directory, old.key_id, now=SystemClock().now(), heard_for=0)
    await work(worked, tasks=1)
    file = CheckpointFile(checkpoints)
    await WriteCheckpoints(worked, file, lambda: new, SystemClock(), last=file.open()).run_once()

    assert await verify(ledger_url, "--checkpoints", str(checkpoints), "--keys", str(directory)) == Exit.OK


async def test_a_forged_checkpoint_is_named(
    ledger_url: str, checkpoints: Path, signing: tuple[Path, PrivateKey], capfd: pytest.CaptureFixture[str]
) -> None:
    header, claims, signature = checkpoints.read_text().split(".")
    edited = base64url(decoded(claims).replace(b'"seq":16', b'"seq":15'))
    checkpoints.write_text(f"{header}.{edited}.{signature}")

    assert await verify(ledger_url, "--checkpoints", str(checkpoints), "--keys", str(signing[0])) == Exit.ERROR
    assert "line 1 (event 15): its signature" in capfd.readouterr().err
