"""Signing keys change while work goes on, and nothing of it is refused."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

from orchestrator.signing.directory import add_key, read_keys, retire_key
from orchestrator.signing.first_key import public_keys
from tests.eventually import eventually
from tests.integration.system.deployment import System, open_system


async def test_keys_change_twice_under_load_and_no_work_is_refused(
    amqp_url: str, ledger_url: str, tmp_path: Path
) -> None:
    keys, trusted = tmp_path / "keys", tmp_path / "trusted.pem"
    add_key(keys, signs_from=datetime.now(UTC))
    trusted.write_bytes(public_keys(keys))
    async with open_system(amqp_url, ledger_url, tmp_path, signing_keys_dir=keys) as system:
        for number in range(2):
            await system.start_agent(
                signatures="required",
                trusted_keys=trusted,
                state_dir=tmp_path / f"agent-{number}",
                heartbeat_seconds=0.2,
                labels={"number": number},
            )
        sent: list[UUID] = []
        load = asyncio.create_task(_dispatch_for_ever(system, sent))
        for _ in range(2):
            await _rotate(keys, tmp_path, since=len(sent), sent=sent)
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        tasks = await system.finished(*sent, timeout=60)

    assert len(sent) > 50
    assert {task.status for task in tasks} == {"completed"}


async def _dispatch_for_ever(system: System, sent: list[UUID]) -> None:
    while True:
        task_id = uuid4()
        await system.client.dispatch("echo", {"message": "x"}, task_id=task_id)
        sent.append(task_id)
        await asyncio.sleep(0.02)


async def _rotate(keys: Path, folder: Path, *, since: int, sent: list[UUID]) -> None:
    """Make a key, wait until every agent trusts it, and retire the one before it."""
    [old] = [stored.key.key_id for stored in read_keys(keys).keys]
    new = add_key(keys, signs_from=datetime.now(UTC)).key_id
    await eventually(lambda: _trusted_by_all(folder, new), timeout=30)
    await eventually(lambda: len(sent) > since + 10, timeout=30)
    retire_key(keys, old, now=datetime.now(UTC), heard_for=0)
    await eventually(lambda: not _trusted_by_any(folder, old), timeout=30)
    await eventually(lambda: len(sent) > since + 25, timeout=30)


def _trusted_by_all(folder: Path, key_id: str) -> bool:
    return all(key_id in text for text in _known(folder))


def _trusted_by_any(folder: Path, key_id: str) -> bool:
    return any(f'"{key_id}":' in text for text in _known(folder))


def _known(folder: Path) -> list[str]:
    files = [folder / f"agent-{number}" / "trusted_keys.json" for number in range(2)]
    return [file.read_text() if file.exists() else "" for file in files]
