"""What a signature says, and that it says nothing once a byte of it was touched."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError

from common.signing.keys import PrivateKey, PublicKey, UnusableKey, read_public_keys
from common.signing.statements import GrantStatement, KeysStatement, SealedTask, digest_of, sign_grant
from tests.factories import make_grant

NOW = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)


def test_a_key_survives_being_written_and_read() -> None:
    key = PrivateKey.new()

    again = PrivateKey.from_pem(key.pem())

    assert (again.key_id, again.public) == (key.key_id, key.public)
    assert PublicKey.from_text(key.public.text()) == key.public


def test_a_file_may_hold_several_public_keys_and_words_between_them() -> None:
    one, other = PrivateKey.new().public, PrivateKey.new().public

    assert read_public_keys(b"# ours\n" + one.pem() + b"\nand the next\n" + other.pem()) == [one, other]


def test_only_ed25519_keys_are_taken() -> None:
    rsa = generate_private_key(65537, 2048)
    pem = rsa.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    with pytest.raises(UnusableKey):
        PrivateKey.from_pem(rsa.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(UnusableKey):
        read_public_keys(pem)
    with pytest.raises(UnusableKey):
        PublicKey.from_text("c2hvcnQ=")


@pytest.mark.parametrize(
    "content", ["not base64", "MCowBQYDK2VwAyEA", "MCowBQYDK2VwAyEAc2hvcnQ=", "MCowBQYDK2VwAyEA" + "A" * 48, "AAAA"]
)
def test_a_public_key_that_is_cut_short_or_goes_on_is_none(content: str) -> None:
    with pytest.raises(UnusableKey):
        read_public_keys(f"-----BEGIN PUBLIC KEY-----\n{content}\n-----END PUBLIC KEY-----\n".encode())


def test_a_signature_counts_for_exactly_its_bytes_and_its_key() -> None:
    key, content = PrivateKey.new(), b"run this"
    signature = key.sign(content)

    assert key.public.verifies(signature, content)
    assert not PrivateKey.new().public.verifies(signature, content)
    assert not key.public.verifies(signature, b"run that")
    assert not key.public.verifies("not base64!", content)
    assert not key.public.verifies("", content)


def test_one_signature_covers_everything_that_decides_what_the_tasks_of_a_message_may_do() -> None:
    key, agent_id, grants = PrivateKey.new(), uuid4(), [make_grant(), make_grant()]

    seal = sign_grant(key, agent_id, [SealedTask.of(grant) for grant in grants], now=NOW, valid=timedelta(minutes=1))

    assert key.public.verifies(seal.signature, seal.statement.encode())
    statement = GrantStatement.model_validate_json(seal.statement)
    assert (statement.aud, statement.exp - statement.iat) == (agent_id, 60)
    assert [task.digest for task in statement.tasks] == [digest_of(grant) for grant in grants]
    # All that a grant says is signed, its work by the digest.
    assert set(type(grants[0]).model_fields) - {"work"} <= set(SealedTask.model_fields)


def test_a_statement_counts_for_one_purpose_and_says_nothing_that_its_reader_does_not_know() -> None:
    keys = KeysStatement(iat=0, keys=()).model_dump_json()

    with pytest.raises(ValidationError):
        GrantStatement.model_validate_json(keys)
    with pytest.raises(ValidationError):
        KeysStatement.model_validate_json(keys.replace('"iat"', '"more":1,"iat"'))
