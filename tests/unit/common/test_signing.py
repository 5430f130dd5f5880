"""Keys as files and messages hold them, and what is signed with them."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from pydantic import ValidationError

from common.signing.claims import GrantClaims, KeyClaims, NamedKey, SignedTask, digest_of, sign_grant
from common.signing.keys import PrivateKey, PublicKey, UnusableKey, read_public_keys
from tests import fixed
from tests.factories import make_grant
from tests.hand_made_jws import decoded, verified_claims

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


def test_one_signature_covers_everything_that_decides_what_the_tasks_of_a_message_may_do() -> None:
    key, agent_id, grants = PrivateKey.new(), uuid4(), [make_grant(), make_grant()]

    signature = sign_grant(
        key, agent_id, [SignedTask.of(grant) for grant in grants], now=NOW, valid=timedelta(minutes=1)
    )

    claims = verified_claims(signature, key.public.raw)
    assert (claims["aud"], claims["exp"] - claims["iat"]) == (str(agent_id), 60)
    assert [task["digest"] for task in claims["tasks"]] == [digest_of(grant) for grant in grants]
    # All that a grant says is signed, its work by the digest.
    said = set(type(grants[0]).model_fields) - {"work"}
    assert [said - set(task) for task in claims["tasks"]] == [set(), set()]


def test_a_key_travels_as_a_json_web_key() -> None:
    key = PrivateKey.new()

    named = NamedKey.of(key.public)

    read = jwt.PyJWK(named.model_dump()).key
    assert isinstance(read, Ed25519PublicKey)
    assert read.public_bytes_raw() == key.public.raw == named.key.raw


@pytest.mark.parametrize("x", ["", "AAAA", "!" * 43, "A" * 44, "A" * 43])
def test_a_json_web_key_that_is_none_or_another_is_refused(x: str) -> None:
    with pytest.raises(UnusableKey):
        _ = NamedKey.of(PrivateKey.new().public).model_copy(update={"x": x}).key


def test_claims_count_for_one_purpose_and_say_nothing_that_their_reader_does_not_know() -> None:
    keys = KeyClaims(iat=0, exp=1, keys=()).model_dump_json()

    with pytest.raises(ValidationError):
        GrantClaims.model_validate_json(keys)
    with pytest.raises(ValidationError):
        KeyClaims.model_validate_json(keys.replace('"iat"', '"more":1,"iat"'))
    with pytest.raises(ValidationError):
        KeyClaims.model_validate_json(keys.replace("chiffon-agents", "somebody"))


def test_a_fixed_key_has_its_fixed_name_and_is_written_in_one_way() -> None:
    public = fixed.KEY.public

    assert (public.raw, public.key_id) == (fixed.PUBLIC, fixed.KEY_ID)
    assert public.pem() == fixed.PUBLIC_PEM
    assert read_public_keys(fixed.PUBLIC_PEM) == [public]
    # The last as in RFC 8037, appendix A.2.
    assert NamedKey.of(public).model_dump() == {
        "kty": "OKP",
        "crv": "Ed25519",
        "kid": fixed.KEY_ID,
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    }


def test_a_fixed_grant_has_its_fixed_digest_claims_and_signature() -> None:
    signature = sign_grant(
        fixed.KEY,
        fixed.AGENT,
        [SignedTask.of(fixed.GRANT)],
        now=fixed.AT,
        valid=timedelta(minutes=1),
        credit=fixed.CREDIT,
    )

    header, claims, made = signature.split(".")
    assert decoded(header).decode() == f'{{"alg":"EdDSA","kid":"{fixed.KEY_ID}","typ":"chiffon-grant+jwt"}}'
    assert decoded(claims).decode() == fixed.GRANT_CLAIMS
    assert made == fixed.GRANT_MADE
