"""A signature counts for one key, one purpose and exactly its bytes, in one spelling."""

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from hypothesis import given
from hypothesis import strategies as st

from common.signing.jws import NotTrusted, Purpose, UnknownKey, read_unverified, sign, verify
from common.signing.keys import PrivateKey, PublicKey
from tests import fixed
from tests.hand_made_jws import base64url, compact, decoded, header_of, verified_claims

KEY, THIEF = PrivateKey.new(), PrivateKey.new()
KEYS = {KEY.key_id: KEY.public}
CLAIMS = '{"aud":"all","iat":1,"exp":2}'
GENUINE = sign(KEY, Purpose.GRANT, CLAIMS)
HEADER = header_of(GENUINE)


def is_believed(signature: str) -> bool:
    """Return whether a signature counts; one that does not must be refused in the one way."""
    try:
        verify(signature, KEYS, Purpose.GRANT)
    except NotTrusted:
        return False
    return True


def test_what_a_key_signed_is_read_with_its_name() -> None:
    assert verify(GENUINE, KEYS, Purpose.GRANT) == (KEY.key_id, CLAIMS.encode())
    assert read_unverified(GENUINE, Purpose.GRANT) == (KEY.key_id, CLAIMS.encode())


def test_the_header_names_algorithm_key_and_purpose_and_nothing_else() -> None:
    assert {"alg": "EdDSA", "kid": KEY.key_id, "typ": "chiffon-grant+jwt"} == HEADER


def test_other_programs_verify_it() -> None:
    assert verified_claims(GENUINE, KEY.public.raw) == json.loads(CLAIMS)
    assert jwt.api_jws.decode(GENUINE, KEY.public.pem(), algorithms=["EdDSA"]) == CLAIMS.encode()
    with pytest.raises(InvalidSignature):
        verified_claims(GENUINE, THIEF.public.raw)


def test_what_other_programs_sign_is_verified() -> None:
    signature = compact({"typ": "chiffon-grant+jwt", "kid": KEY.key_id, "alg": "EdDSA"}, b"{}", KEY.key.sign)

    assert verify(signature, KEYS, Purpose.GRANT).claims == b"{}"


@dataclass(frozen=True)
class Forgery:
    header: dict[str, Any]
    sign: Callable[[bytes], bytes] = KEY.key.sign


def _hmac(secret: bytes) -> Callable[[bytes], bytes]:
    return lambda content: hmac.digest(secret, content, "sha256")


JWK = {"kty": "OKP", "crv": "Ed25519", "x": base64url(THIEF.public.raw)}
FORGERIES = {
    "alg none, unsigned": Forgery({**HEADER, "alg": "none"}, lambda _: b""),
    "alg none": Forgery({**HEADER, "alg": "none"}),
    "alg nOnE": Forgery({**HEADER, "alg": "nOnE"}),
    "HS256 with the public key": Forgery({**HEADER, "alg": "HS256"}, _hmac(KEY.public.raw)),
    "HS256 with the public key as PEM": Forgery({**HEADER, "alg": "HS256"}, _hmac(KEY.public.pem())),
    "HS512 as long as ours": Forgery({**HEADER, "alg": "HS512"}, lambda c: hmac.digest(KEY.public.raw, c, "sha512")),
    "EdDSA that is an HMAC": Forgery(HEADER, lambda c: hmac.digest(KEY.public.raw, c, "sha512")),
    "alg of another key": Forgery({**HEADER, "alg": "ES256"}),
    "alg in small letters": Forgery({**HEADER, "alg": "eddsa"}),
    "alg is a list": Forgery({**HEADER, "alg": ["EdDSA"]}),
    "no alg": Forgery({"kid": KEY.key_id, "typ": HEADER["typ"]}),
    "no typ": Forgery({"kid": KEY.key_id, "alg": "EdDSA"}),
    "typ JWT": Forgery({**HEADER, "typ": "JWT"}),
    "typ of keys": Forgery({**HEADER, "typ": "chiffon-keys+jwt"}),
    "typ of a checkpoint": Forgery({**HEADER, "typ": "chiffon-checkpoint+jwt"}),
    "typ in capitals": Forgery({**HEADER, "typ": HEADER["typ"].upper()}),
    "no kid": Forgery({"alg": "EdDSA", "typ": HEADER["typ"]}),
    "kid of a stranger": Forgery({**HEADER, "kid": THIEF.key_id}),
    "kid of a stranger who signs": Forgery({**HEADER, "kid": THIEF.key_id}, THIEF.key.sign),
    "kid is a path": Forgery({**HEADER, "kid": "../../etc/passwd"}),
    "kid is a number": Forgery({**HEADER, "kid": 7}),
    "kid is none": Forgery({**HEADER, "kid": None}),
    "kid is a list": Forgery({**HEADER, "kid": [KEY.key_id]}),
    "a thief under our kid": Forgery(HEADER, THIEF.key.sign),
    "jwk": Forgery({**HEADER, "jwk": JWK}, THIEF.key.sign),
    "jwk beside our signature": Forgery({**HEADER, "jwk": JWK}),
    "jku": Forgery({**HEADER, "jku": "https://evil.example/keys"}),
    "x5u": Forgery({**HEADER, "x5u": "https://evil.example/cert"}),
    "x5c": Forgery({**HEADER, "x5c": ["AAAA"]}),
    "crit": Forgery({**HEADER, "crit": ["exp"], "exp": 1}),
    "crit that is empty": Forgery({**HEADER, "crit": []}),
    "b64 false": Forgery({**HEADER, "b64": False, "crit": ["b64"]}),
    "any other name": Forgery({**HEADER, "cty": "JWT"}),
}


@pytest.mark.parametrize("forgery", FORGERIES.values(), ids=FORGERIES.keys())
def test_no_other_header_is_believed(forgery: Forgery) -> None:
    assert not is_believed(compact(forgery.header, CLAIMS.encode(), forgery.sign))


def test_a_header_that_is_no_object_is_refused() -> None:
    for header in (b"", b"[]", b"null", b'"EdDSA"', b"{", b"\xff", b"[" * 300):
        signing_input = f"{base64url(header)}.{base64url(CLAIMS.encode())}"
        assert not is_believed(f"{signing_input}.{base64url(KEY.key.sign(signing_input.encode()))}")


@pytest.mark.parametrize(
    "header",
    [
        json.dumps(HEADER).replace("{", '{"alg": "none", ', 1).encode(),
        json.dumps(HEADER).replace("{", '{"k\\u0069d": "x", ', 1).encode(),
        json.dumps(HEADER).encode("utf-16"),
        json.dumps(HEADER).encode("utf-8-sig"),
    ],
    ids=["alg twice", "kid twice, once escaped", "UTF-16", "a byte order mark"],
)
def test_a_header_that_readers_may_take_for_another_is_refused(header: bytes) -> None:
    signing_input = f"{base64url(header)}.{base64url(CLAIMS.encode())}"

    assert not is_believed(f"{signing_input}.{base64url(KEY.key.sign(signing_input.encode()))}")


def test_the_same_signature_has_no_second_spelling() -> None:
    header, claims, made = GENUINE.split(".")
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(made[-1])
    others = [made[:-1] + alphabet[last | bits] for bits in range(1, 16) if last | bits != last]
    assert others
    assert all(decoded(other) == decoded(made) for other in others), "they spell the same bytes"
    spellings = [f"{header}.{claims}.{other}" for other in others]
    spellings += [GENUINE + "=", GENUINE + "==", f"{header}=.{claims}.{made}", f"{header}.{claims}==.{made}"]
    spellings += [GENUINE.replace("-", "+").replace("_", "/") + " ", f"{GENUINE[:-5]}\n{GENUINE[-5:]}"]

    assert not any(map(is_believed, spellings))


def test_nothing_stands_before_or_after_a_signature_and_there_is_one() -> None:
    header, claims, made = GENUINE.split(".")
    twice = json.dumps({"payload": claims, "signatures": [{"protected": header, "signature": made}]})
    around = [f"{GENUINE}.{made}", f"{GENUINE}{made}", f"{GENUINE}.", f".{GENUINE}", f"{GENUINE}\n", f" {GENUINE}"]
    cut = ["", ".", "..", header, f"{header}.{claims}", f"{header}.{claims}.", f"{header}..{made}", f".{claims}.{made}"]
    other = [GENUINE * 2, f"{GENUINE},{GENUINE}", GENUINE + "A", GENUINE[:-1], f"{GENUINE}\x00", f"{GENUINE}é", twice]

    assert not any(map(is_believed, around + cut + other))


def test_no_byte_can_be_another() -> None:
    for place in range(len(GENUINE)):
        for bit in range(8):
            touched = GENUINE[:place] + chr(ord(GENUINE[place]) ^ (1 << bit)) + GENUINE[place + 1 :]
            assert not is_believed(touched), f"{place}, bit {bit}"


@given(st.text(max_size=300) | st.text("ABab09-_.=", max_size=300))
def test_any_text_is_refused_in_the_one_way(text: str) -> None:
    assert not is_believed(text)


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(UnknownKey, match=THIEF.key_id):
        verify(sign(THIEF, Purpose.GRANT, CLAIMS), KEYS, Purpose.GRANT)


@pytest.mark.parametrize("kid", ["", "../key", "A" * 32, "0" * 31, "0" * 33, "0" * 31 + "\n", 7, None])
def test_what_is_no_id_of_a_key_is_not_waited_for(kid: Any) -> None:
    with pytest.raises(NotTrusted, match="kid") as refused:
        verify(compact({**HEADER, "kid": kid}, CLAIMS.encode(), THIEF.key.sign), KEYS, Purpose.GRANT)
    assert not isinstance(refused.value, UnknownKey)


@pytest.mark.parametrize("other", sorted(set(Purpose) - {Purpose.GRANT}))
def test_a_signature_counts_for_one_purpose(other: Purpose) -> None:
    for signature in (sign(KEY, other, CLAIMS), GENUINE.replace(GENUINE.split(".")[0], _head(other))):
        with pytest.raises(NotTrusted, match=r"typ|wrong"):
            verify(signature, KEYS, Purpose.GRANT)
        with pytest.raises(NotTrusted, match=r"typ"):
            read_unverified(signature, Purpose.GRANT)


def _head(purpose: Purpose) -> str:
    return base64url(json.dumps({**HEADER, "typ": purpose}).encode())


def test_a_fixed_message_by_a_fixed_key_is_a_fixed_text() -> None:
    assert sign(fixed.KEY, Purpose.GRANT, CLAIMS) == fixed.SIGNATURE
    assert verify(fixed.SIGNATURE, {fixed.KEY_ID: PublicKey(fixed.PUBLIC)}, Purpose.GRANT).claims == CLAIMS.encode()


@pytest.mark.parametrize(
    "changed",
    [{"alg": "none"}, {"alg": "ES256"}, {"typ": "JWT"}, {"kid": "../key"}, {"jwk": JWK}, {"crit": []}],
    ids=",".join,
)
def test_what_nobody_verifies_must_have_the_one_header_too(changed: dict[str, Any]) -> None:
    signature = compact({**HEADER, **changed}, CLAIMS.encode(), KEY.key.sign)

    with pytest.raises(NotTrusted):
        read_unverified(signature, Purpose.GRANT)
