"""The owner of the broker writes what it likes to an agent, and nothing that it forges starts."""

import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from agents.executors.echo import EchoExecutor
from agents.journal import Journal
from agents.journal_file import JournalFile
from agents.seal_check import SealCheck
from agents.trust import TRUST_FILE, Trust
from agents.used_claims import UsedClaims
from agents.write_gate import Passage, WriteGate
from common.messages import GrantedTask
from common.seal import Seal
from common.signing.keys import PrivateKey
from common.signing.statements import SealedTask, sign_grant
from tests.factories import make_grant
from tests.fakes.clock import FakeClock
from tests.fuzz.bounds import SEED, many

AGENT, OTHER, LEASE = UUID(int=7), UUID(int=8), timedelta(minutes=1)
TRIES = many(500)  # the ten thousand of the long form are twenty times as many

Forgery = Callable[[Seal, random.Random], Seal]


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.new()


@pytest.fixture
async def gate(key: PrivateKey, tmp_path: Path) -> AsyncIterator[WriteGate]:
    clock = FakeClock()
    seals = SealCheck(Trust(tmp_path / TRUST_FILE, [key.public]), AGENT, clock, skew=timedelta(minutes=5))
    async with Journal(JournalFile(tmp_path / "journal.jsonl")) as journal:
        yield WriteGate({"echo": EchoExecutor()}, agent_type="infra", journal=journal, seals=seals, used=UsedClaims())


def sealed(key: PrivateKey, grant: GrantedTask, agent_id: UUID = AGENT) -> Seal:
    return sign_grant(key, agent_id, [SealedTask.of(grant)], now=FakeClock().now(), valid=LEASE)


async def test_no_byte_of_what_was_signed_can_be_another(gate: WriteGate, key: PrivateKey) -> None:
    grant = make_grant()
    seal = sealed(key, grant)
    text = seal.statement
    for place in range(len(text)):
        for bit in range(7):
            touched = text[:place] + chr(ord(text[place]) ^ (1 << bit)) + text[place + 1 :]
            forged = seal.model_copy(update={"statement": touched})
            assert not isinstance(await gate.admit(grant, forged), Passage), f"{place}, bit {bit}"
    for text in (seal.statement[:-1], seal.statement + " ", " " + seal.statement, seal.statement * 2, ""):
        assert not isinstance(await gate.admit(grant, seal.model_copy(update={"statement": text})), Passage)

    assert isinstance(await gate.admit(grant, seal), Passage)


async def test_ten_thousand_forged_grants_start_nothing(gate: WriteGate, key: PrivateKey) -> None:
    print(f"CHIFFON_SEED={SEED}")
    chance, thief = random.Random(SEED), PrivateKey.new()
    genuine = [make_grant() for _ in range(50)]
    seals = [sealed(key, grant) for grant in genuine]
    forgeries: list[Forgery] = [
        lambda seal, chance: seal.model_copy(update={"signature": thief.sign(chance.randbytes(40))}),
        lambda seal, _: seal.model_copy(update={"signature": thief.sign(seal.statement.encode())}),
        lambda seal, chance: seal.model_copy(update={"signature": seals[chance.randrange(50)].signature}),
        lambda seal, chance: seal.model_copy(update={"signature": seal.signature[: chance.randrange(86)]}),
        lambda seal, chance: seal.model_copy(update={"statement": _touched(seal.statement, chance)}),
        lambda _, chance: sealed(key, genuine[chance.randrange(50)], agent_id=OTHER),
        lambda _, chance: seals[chance.randrange(50)],
    ]
    passed = 0
    for number in range(TRIES):
        seal = forgeries[number % len(forgeries)](seals[number % 50], chance)
        # Work of the forger's own, or genuine work under a seal that is not its.
        grant = make_grant() if number % 2 else genuine[number % 50]
        if seal in seals and seals.index(seal) == number % 50:
            continue
        passed += isinstance(await gate.admit(grant, seal), Passage)

    assert passed == 0
    assert all([isinstance(await gate.admit(*pair), Passage) for pair in zip(genuine, seals, strict=True)])


def _touched(text: str, chance: random.Random) -> str:
    place = chance.randrange(len(text))
    return text[:place] + chr(ord(text[place]) ^ (1 << chance.randrange(7))) + text[place + 1 :]
