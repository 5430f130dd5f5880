"""Signatures in the form of RFC 7515 (JSON Web Signature, compact serialisation), with Ed25519 keys only.

The header names the algorithm, the key and the purpose, and nothing else: no key, address or extension that a message
brings along is ever used.
"""

import re
from base64 import urlsafe_b64decode
from collections.abc import Mapping
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from jwt import PyJWS, PyJWTError
from jwt.exceptions import DecodeError

from common.json_text import read_json
from common.signing.keys import KEY_ID_LENGTH, PrivateKey, PublicKey

ALGORITHM = "EdDSA"
_HEADER_NAMES = {"alg", "kid", "typ"}
_KEY_ID = re.compile(f"[0-9a-f]{{{KEY_ID_LENGTH}}}")
# Base64url without padding. The last of the 86 characters of a signature holds two bits: others than these four would
# be a second spelling of the same signature. Header and claims are signed as they are spelled.
_HEADER = re.compile("[A-Za-z0-9_-]{1,512}")
_SIGNATURE = re.compile("[A-Za-z0-9_-]{85}[AQgw]")


class Purpose(StrEnum):
    """What a signature is for: the `typ` of its header. None counts for another purpose (RFC 8725, section 3.11)."""

    GRANT = "chiffon-grant+jwt"
    KEYS = "chiffon-keys+jwt"
    CHECKPOINT = "chiffon-checkpoint+jwt"


class Signed(NamedTuple):
    """What a signature holds: the id of the key that made it, and the claims, a JSON text."""

    key_id: str
    claims: bytes


class NotTrusted(Exception):
    """A signature that does not count; the message says why, for people."""


class UnknownKey(NotTrusted):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"it is signed with the key {key_id!r}, which is not trusted here")
        self.key_id = key_id


class _Jws(PyJWS):
    """Decodes the parts of a signature without looking at each character in Python, which takes longer than the rest.

    What is no base64url is found by `_header`, or is not what was signed.
    """

    @staticmethod
    def _decode_base64url_segment(segment: bytes, name: str) -> bytes:
        try:
            return _decoded(segment)
        except ValueError:
            raise DecodeError(f"the {name} is not base64url") from None


_JWS = _Jws([ALGORITHM])


def sign(key: PrivateKey, purpose: Purpose, claims: str) -> str:
    """Return the signature over claims, a JSON text, which it holds."""
    return _JWS.encode(claims.encode(), key.key, ALGORITHM, {"kid": key.key_id, "typ": purpose.value})


def verify(signature: str, keys: Mapping[str, PublicKey], purpose: Purpose) -> Signed:
    """Return what one of the keys signed for this purpose.

    Raises `UnknownKey`, and `NotTrusted` for any other reason not to believe it.
    """
    key_id = _key_id(_header(signature), purpose)
    key = keys.get(key_id)
    if key is None:
        raise UnknownKey(key_id)
    try:
        return Signed(key_id, _JWS.decode(signature, key.key, [ALGORITHM]))
    except PyJWTError:
        raise NotTrusted("its signature is wrong") from None


def read_unverified(signature: str, purpose: Purpose) -> Signed:
    """Return what a signature says, which nothing vouches for; raises `NotTrusted` for one that has another form."""
    key_id = _key_id(_header(signature), purpose)
    try:
        return Signed(key_id, _decoded(signature.split(".")[1].encode()))
    except ValueError:
        raise NotTrusted("its claims are not base64url") from None


def _header(signature: str) -> str:
    """Return the header as it is written; raises `NotTrusted` for what has not the form of a signature."""
    header = signature[: signature.find(".")]
    made = signature[signature.rfind(".") + 1 :]
    if not (
        signature.isascii()
        and signature.count(".") == 2
        and _HEADER.fullmatch(header) is not None
        and _SIGNATURE.fullmatch(made) is not None
    ):
        raise NotTrusted("its signature is no JWS in compact serialisation")
    return header


@lru_cache(maxsize=64)
def _key_id(header: str, purpose: Purpose) -> str:
    """Return the id of the key that a header names; raises `NotTrusted`. The same few headers come again and again."""
    try:
        said = read_json(_decoded(header.encode()).decode("ascii"))
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.keys() != _HEADER_NAMES:
        raise NotTrusted(f"the header of its signature must have {', '.join(sorted(_HEADER_NAMES))} and nothing else")
    if said["alg"] != ALGORITHM:
        raise NotTrusted(f"the alg of its signature must be {ALGORITHM}")
    if said["typ"] != purpose:
        raise NotTrusted(f"the typ of its signature must be {purpose.value}")
    if not isinstance(said["kid"], str) or _KEY_ID.fullmatch(said["kid"]) is None:
        raise NotTrusted("the kid of its signature is no id of a key")
    return said["kid"]


def _decoded(segment: bytes) -> bytes:
    return urlsafe_b64decode(segment + b"=" * (-len(segment) % 4))
