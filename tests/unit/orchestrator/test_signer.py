"""What the orchestrator signs, as it goes over the bus, and which keys it announces."""

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import rfc8785

from agents.gate.trust import Trust
from common.messages import Grant
from common.protocol import ORCHESTRATOR, WorkRequestEnvelope, encode
from common.signing.keys import PrivateKey
from orchestrator.audit.service import AuditService
from orchestrator.leases.grants import granted
from orchestrator.loops.read_keys import ReadKeys
from orchestrator.signing.directory import add_key, retire_key
from orchestrator.signing.signer import NEWS_COUNTS, Signer
from tests.factories import make_new_task
from tests.fakes.clock import FakeClock
from tests.hand_made_jws import header_of, verified_claims

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
AGENT = UUID(int=7)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def key(keys: Path) -> PrivateKey:
    return add_key(keys, signs_from=LONG_AGO)


def grants_on_the_bus(signer: Signer, *parameters: dict[str, Any]) -> dict[str, Any]:
    """Return the payload of a grant as an agent in any language reads it."""
    tasks = [
        granted(
            make_new_task(parameters=given, hints={"note": 1.0}),
            uuid4(),
            attempt=1,
            lease=timedelta(seconds=30),
            max_output_bytes=1024,
        )
        for given in parameters
    ]
    grant = Grant(tasks=tasks, signature=signer.sign(AGENT, tasks, credit=4), credit=4)
    envelope: dict[str, dict[str, Any]] = json.loads(
        encode(WorkRequestEnvelope(from_agent=ORCHESTRATOR, to_agent="a", payload=grant))
    )
    return envelope["payload"]


def test_a_grant_is_verified_by_the_rfcs_alone(keys: Path, key: PrivateKey) -> None:
    payload = grants_on_the_bus(Signer(keys, FakeClock()), {"message": "hello"}, {"n": [100.0, 1e-7], "\ue000": "ä"})

    assert header_of(payload["signature"]) == {"alg": "EdDSA", "kid": key.key_id, "typ": "chiffon-grant+jwt"}
    claims = verified_claims(payload["signature"], key.public.raw)
    assert (UUID(claims["aud"]), claims["exp"] - claims["iat"]) == (AGENT, 30)
    assert claims["credit"] == payload["credit"] == 4
    for task, signed in zip(payload["tasks"], claims["tasks"], strict=True):
        work = task.pop("work")
        content = {
            "hints": work["hints"],
            "parameters": work["parameters"],
            "policy_version": task["policy_version"],
            "target": task["target"] or "",
            "work_type": work["work_type"],
        }
        digest = hashlib.sha256(rfc8785.dumps(content)).hexdigest()
        assert signed == {"task_id": work["task_id"], "digest": digest, **task}


def test_news_of_keys_are_signed_with_each_and_name_all(keys: Path, key: PrivateKey) -> None:
    other = add_key(keys, signs_from=LONG_AGO)
    signer = Signer(keys, FakeClock())

    news = signer.news_for([])

    claims = [
        verified_claims(one, by.public.raw) for one, by in zip(news, signer_order(signer, key, other), strict=True)
    ]
    assert claims[0] == claims[1]
    assert {named["kid"] for named in claims[0]["keys"]} == {key.key_id, other.key_id}


def signer_order(signer: Signer, *keys: PrivateKey) -> list[PrivateKey]:
    by_id = {key.key_id: key for key in keys}
    return [by_id[key_id] for key_id in signer.key_ids[0]]


def test_news_of_keys_count_whenever_they_are_asked_for(keys: Path, key: PrivateKey, tmp_path: Path) -> None:
    add_key(keys, signs_from=LONG_AGO)
    clock = FakeClock()
    signer = Signer(keys, clock)

    for number in range(10):
        agent = Trust(tmp_path / f"{number}.json", [key.public])
        assert agent.follow(signer.news_for([]), now=clock.now(), skew=timedelta(0))
        clock.advance(seconds=NEWS_COUNTS.total_seconds() / 3)


def test_news_of_keys_are_signed_once_for_many_agents_and_expire(keys: Path, key: PrivateKey, tmp_path: Path) -> None:
    add_key(keys, signs_from=LONG_AGO)
    clock = FakeClock()
    signer = Signer(keys, clock)
    recorded = signer.news_for([])
    assert signer.news_for([]) is recorded

    clock.advance(seconds=NEWS_COUNTS.total_seconds() + 1)

    assert not Trust(tmp_path / "late.json", [key.public]).follow(recorded, now=clock.now(), skew=timedelta(0))


async def test_a_change_of_keys_is_news_at_once(keys: Path, key: PrivateKey) -> None:
    clock = FakeClock()
    signer = Signer(keys, clock)
    before = signer.news_for([])
    new = add_key(keys, signs_from=LONG_AGO)
    retire_key(keys, min(key, new, key=lambda one: one.key_id).key_id, now=clock.now(), heard_for=0)

    await signer.refresh()

    [signature] = signer.news_for([key.key_id, new.key_id])
    kept = max(key, new, key=lambda one: one.key_id)
    claims = verified_claims(signature, kept.public.raw)
    assert (signature,) != before
    assert [named["kid"] for named in claims["keys"]] == [kept.key_id]
    assert claims["retired"] == [min(key, new, key=lambda one: one.key_id).key_id]


def test_an_agent_that_lacks_any_key_hears_of_all_and_one_that_lacks_none_hears_nothing(
    keys: Path, key: PrivateKey
) -> None:
    other = add_key(keys, signs_from=LONG_AGO)
    signer = Signer(keys, FakeClock())

    assert len(signer.news_for([key.key_id])) == len(signer.news_for([other.key_id])) == 2
    assert signer.news_for([key.key_id, other.key_id]) == ()


async def test_an_orchestrator_goes_on_signing_while_its_keys_cannot_be_read(keys: Path, key: PrivateKey) -> None:
    signer = Signer(keys, FakeClock())
    (keys / f"{key.key_id}.pem").rename(keys / "elsewhere")

    assert not await signer.refresh()

    assert signer.key.key_id == key.key_id
    assert signer.key_ids == ([key.key_id], [])


class LedgerAwayOnce(AuditService):
    """Writes an event the second time that it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.told: list[tuple[Sequence[str], Sequence[str]]] = []

    async def keys_changed(self, keys: Sequence[str], retired: Sequence[str]) -> None:
        self.asked += 1
        if self.asked == 1:
            raise ConnectionRefusedError
        self.told.append((keys, retired))


async def test_a_change_of_keys_is_an_event_even_if_the_ledger_was_away(keys: Path, key: PrivateKey) -> None:
    signer, audit = Signer(keys, FakeClock()), LedgerAwayOnce()
    reading = ReadKeys(signer, audit)
    other = add_key(keys, signs_from=LONG_AGO)

    with pytest.raises(ConnectionRefusedError):
        await reading.run_once()
    await reading.run_once()
    await reading.run_once()

    [(told, retired)] = audit.told
    assert (set(told), retired) == ({key.key_id, other.key_id}, [])
