"""The owner of the broker writes what it likes to an agent, and nothing that it forges starts."""

import hmac
import random
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from agents.attempts.begun import Begun
from agents.disk.journal import Journal
from agents.disk.journal_file import JournalFile
from agents.executors.echo import EchoExecutor
from agents.gate.signature_check import SignatureCheck
from agents.gate.trust import TRUST_FILE, Trust
from agents.gate.write_gate import Passage, WriteGate
from common.messages import GrantedTask
from common.signing.claims import SignedTask, sign_grant
from common.signing.jws import Purpose, sign
from common.signing.keys import PrivateKey
from tests.factories import make_grant
from tests.fakes.clock import FakeClock
from tests.fuzz.bounds import SEED, many, some
from tests.hand_made_jws import base64url, compact, decoded, header_of

AGENT, OTHER, LEASE = UUID(int=7), UUID(int=8), timedelta(minutes=1)
TRIES = many(500)  # the ten thousand of the long form are twenty times as many

Forgery = Callable[[str, random.Random], str]


@pytest.fixture
def key() -> PrivateKey:
    return PrivateKey.new()


@pytest.fixture
async def gate(key: PrivateKey, tmp_path: Path) -> AsyncIterator[WriteGate]:
    clock = FakeClock()
    trust = Trust(tmp_path / TRUST_FILE, [key.public])
    signatures = SignatureCheck(trust, AGENT, clock, skew=timedelta(minutes=5), claim_of=lambda grant: grant.claim_id)
    with Journal(JournalFile(tmp_path / "journal.jsonl"), session=uuid4(), host_boot_id="boot") as journal:
        yield WriteGate(
            {"echo": EchoExecutor()}, agent_type="infra", journal=journal, signatures=signatures, begun=Begun()
        )


def signed(key: PrivateKey, grant: GrantedTask, agent_id: UUID = AGENT) -> str:
    return sign_grant(key, agent_id, [SignedTask.of(grant)], now=FakeClock().now(), valid=LEASE)


def claims_of(signature: str) -> bytes:
    return decoded(signature.split(".")[1])


async def test_no_byte_of_what_was_signed_can_be_another(gate: WriteGate, key: PrivateKey) -> None:
    grant = make_grant()
    signature = signed(key, grant)
    header, _, made = signature.split(".")
    text = claims_of(signature)
    for place in range(len(text)):
        for bit in some(range(7), 2):
            touched = text[:place] + bytes([text[place] ^ (1 << bit)]) + text[place + 1 :]
            forged = f"{header}.{base64url(touched)}.{made}"
            assert not isinstance(gate.admit(grant, forged), Passage), f"{place}, bit {bit}"
    for other in (text[:-1], text + b" ", b" " + text, text * 2, b""):
        assert not isinstance(gate.admit(grant, f"{header}.{base64url(other)}.{made}"), Passage)

    assert isinstance(gate.admit(grant, signature), Passage)


async def test_what_was_signed_for_another_purpose_is_no_grant(gate: WriteGate, key: PrivateKey) -> None:
    grant = make_grant()
    claims = claims_of(signed(key, grant)).decode()

    for purpose in set(Purpose) - {Purpose.GRANT}:
        assert not isinstance(gate.admit(grant, sign(key, purpose, claims)), Passage)
    assert isinstance(gate.admit(grant, sign(key, Purpose.GRANT, claims)), Passage)


async def test_ten_thousand_forged_grants_start_nothing(gate: WriteGate, key: PrivateKey) -> None:
    print(f"CHIFFON_SEED={SEED}")
    chance, thief = random.Random(SEED), PrivateKey.new()
    genuine = [make_grant() for _ in range(50)]
    signatures = [signed(key, grant) for grant in genuine]
    forgeries: list[Forgery] = [
        lambda one, chance: _resigned(one, thief.key.sign(chance.randbytes(40))),
        lambda one, _: compact(header_of(one), claims_of(one), thief.key.sign),
        lambda one, chance: _resigned(one, decoded(signatures[chance.randrange(50)].split(".")[2])),
        lambda one, chance: one[: chance.randrange(len(one) - 1)],
        _touched,
        lambda one, _: compact({**header_of(one), "alg": "none"}, claims_of(one), lambda _: b""),
        lambda one, _: compact({**header_of(one), "alg": "HS256"}, claims_of(one), _hmac_with(key)),
        lambda one, chance: f"{one}.{signatures[chance.randrange(50)]}",
        lambda _, chance: signed(key, genuine[chance.randrange(50)], agent_id=OTHER),
        lambda _, chance: signatures[chance.randrange(50)],
    ]
    passed = 0
    for number in range(TRIES):
        signature = forgeries[number % len(forgeries)](signatures[number % 50], chance)
        # Work of the forger's own, or genuine work under a signature that is not its.
        grant = make_grant() if number % 2 else genuine[number % 50]
        if signature == signatures[number % 50]:
            continue
        passed += isinstance(gate.admit(grant, signature), Passage)

    assert passed == 0
    assert all(isinstance(gate.admit(*pair), Passage) for pair in zip(genuine, signatures, strict=True))


def _resigned(signature: str, made: bytes) -> str:
    return f"{signature.rpartition('.')[0]}.{base64url(made)}"


def _touched(text: str, chance: random.Random) -> str:
    """Change something behind the header; with the name of a key that may still come, the agent would wait for it."""
    place = chance.randrange(text.index("."), len(text))
    return text[:place] + chr(ord(text[place]) ^ (1 << chance.randrange(7))) + text[place + 1 :]


def _hmac_with(key: PrivateKey) -> Callable[[bytes], bytes]:
    """Sign as somebody does who hopes that the public key is taken for a shared secret."""
    return lambda content: hmac.digest(key.public.pem(), content, "sha256")
