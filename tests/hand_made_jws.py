"""Signatures made and read by hand from RFC 7515, without the code and the library that the program uses."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def base64url(content: bytes) -> str:
    return urlsafe_b64encode(content).decode().rstrip("=")


def decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def compact(header: Mapping[str, Any], claims: bytes, sign: Callable[[bytes], bytes]) -> str:
    """Return a JWS with this header; `sign` makes the signature over header and claims."""
    signing_input = f"{base64url(json.dumps(header).encode())}.{base64url(claims)}"
    return f"{signing_input}.{base64url(sign(signing_input.encode()))}"


def header_of(signature: str) -> dict[str, Any]:
    header: dict[str, Any] = json.loads(decoded(signature.split(".")[0]))
    return header


def verified_claims(signature: str, public_key: bytes) -> dict[str, Any]:
    """Return the claims that the key (32 bytes) signed; raises `InvalidSignature` for others."""
    header, claims, made = signature.split(".")
    Ed25519PublicKey.from_public_bytes(public_key).verify(decoded(made), f"{header}.{claims}".encode())
    content: dict[str, Any] = json.loads(decoded(claims))
    return content
