"""Ed25519 keys, as files and messages hold them.

A key is named by what it is: `key_id` is the beginning of SHA-256 over the public key, so that no name can be taken.
"""

import base64
import binascii
import hashlib
import re

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from common.errors import Invalid

KEY_ID_LENGTH = 32
_PUBLIC_BLOCK = re.compile(rb"-----BEGIN PUBLIC KEY-----(.+?)-----END PUBLIC KEY-----", re.DOTALL)
# What stands before the 32 bytes of an Ed25519 public key: "a key of this kind, so long" (RFC 8410).
_ED25519 = bytes.fromhex("302a300506032b6570032100")


class UnusableKey(Invalid):
    """This is no Ed25519 key; the message never holds any of it."""


class PublicKey:
    """Checks signatures (`common.signing.jws`). Equal when the keys are."""

    def __init__(self, raw: bytes) -> None:
        try:
            self.key = Ed25519PublicKey.from_public_bytes(raw)
        except ValueError:
            raise UnusableKey("an Ed25519 public key has 32 bytes") from None
        self.raw = raw
        self.key_id = hashlib.sha256(raw).hexdigest()[:KEY_ID_LENGTH]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def pem(self) -> bytes:
        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def text(self) -> str:
        """Return the key as base64; see `from_text`."""
        return base64.b64encode(self.raw).decode()

    @classmethod
    def from_text(cls, text: str) -> "PublicKey":
        try:
            return cls(base64.b64decode(text, validate=True))
        except binascii.Error:
            raise UnusableKey("a public key is base64 text") from None


class PrivateKey:
    """Makes signatures (`common.signing.jws`)."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.key = key
        self.public = PublicKey(key.public_key().public_bytes_raw())

    @property
    def key_id(self) -> str:
        return self.public.key_id

    @classmethod
    def new(cls) -> "PrivateKey":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> "PrivateKey":
        """Read a key that is not encrypted; raises `UnusableKey`."""
        try:
            key = load_pem_private_key(pem, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise UnusableKey("this is not an unencrypted private key in PEM") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise UnusableKey("this is a key of another kind than Ed25519")
        return cls(key)

    def pem(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_public_keys(pem: bytes) -> list[PublicKey]:
    """Return the public keys of a text that holds any number of them in PEM; raises `UnusableKey`."""
    found = []
    for block in _PUBLIC_BLOCK.findall(pem):
        try:
            content = base64.b64decode(b"".join(block.split()), validate=True)
        except binascii.Error:
            raise UnusableKey("one of the public keys cannot be read") from None
        if not content.startswith(_ED25519):
            raise UnusableKey("one of the public keys is of another kind than Ed25519")
        found.append(PublicKey(content.removeprefix(_ED25519)))
    return found
