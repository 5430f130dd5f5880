"""What a token looks like: `chf_` and 49 characters, of which the last six tell a typing error without asking anybody.

Only the digest of a token is stored: 256 random bits cannot be guessed from it, however fast it is computed.
"""

import hashlib
import hmac
import secrets
import zlib
from collections.abc import Mapping
from types import MappingProxyType

from common.rest.identities import TokenPurpose

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SECRET_BITS = 256
SECRET_LENGTH = 43
CHECK_LENGTH = 6


PREFIXES: Mapping[TokenPurpose, str] = MappingProxyType(
    {TokenPurpose.API: "chf_", TokenPurpose.AGENT: "cha_", TokenPurpose.ENROLMENT: "che_"}
)
LENGTH = 4 + SECRET_LENGTH + CHECK_LENGTH


def new_token(purpose: TokenPurpose) -> str:
    """Return a token that nobody has seen before."""
    body = PREFIXES[purpose] + _base62(secrets.randbits(SECRET_BITS), SECRET_LENGTH)
    return body + checksum(body)


def purpose_of(token: str) -> TokenPurpose | None:
    """Return what a token is for; None when it is none: mistyped, cut off, or something else altogether."""
    if len(token) != LENGTH or not token.isascii():
        return None
    if not hmac.compare_digest(checksum(token[:-CHECK_LENGTH]), token[-CHECK_LENGTH:]):
        return None
    return next((purpose for purpose, prefix in PREFIXES.items() if token.startswith(prefix)), None)


def digest_of(token: str) -> bytes:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def checksum(body: str) -> str:
    """Return the six characters that follow the rest of a token: its CRC32."""
    return _base62(zlib.crc32(body.encode()), CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
