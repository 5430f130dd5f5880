"""What a token looks like: a prefix such as `chf_` and 49 characters, of which the last six are a checksum.

The checksum tells a typing error without a look into the database.

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
TICKET_PREFIX = "cht_"
LENGTH = 4 + SECRET_LENGTH + CHECK_LENGTH


def new_token(purpose: TokenPurpose) -> str:
    """Return a token that nobody has seen before."""
    return _new(PREFIXES[purpose])


def new_ticket() -> str:
    """Return a ticket for a WebSocket, of the same form."""
    return _new(TICKET_PREFIX)


def purpose_of(token: str) -> TokenPurpose | None:
    """Return what a token is for; None when it is none: mistyped, cut off, or something else altogether."""
    if not _is_whole(token):
        return None
    return next((purpose for purpose, prefix in PREFIXES.items() if token.startswith(prefix)), None)


def is_ticket(text: str) -> bool:
    """Return whether a text has the form of a ticket."""
    return text.startswith(TICKET_PREFIX) and _is_whole(text)


def digest_of(token: str) -> bytes:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


def checksum(body: str) -> str:
    """Return the six characters that follow the rest of a token: its CRC32."""
    return _base62(zlib.crc32(body.encode()), CHECK_LENGTH)


def _new(prefix: str) -> str:
    body = prefix + _base62(secrets.randbits(SECRET_BITS), SECRET_LENGTH)
    return body + checksum(body)


def _is_whole(text: str) -> bool:
    if len(text) != LENGTH or not text.isascii():
        return False
    return hmac.compare_digest(checksum(text[:-CHECK_LENGTH]), text[-CHECK_LENGTH:])


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(ALPHABET))
        digits.append(ALPHABET[digit])
    return "".join(reversed(digits))
