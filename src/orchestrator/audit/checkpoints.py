"""Checkpoints as text: a line of the file is a signature (`common.signing.jws`) that holds what is claimed."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import ValidationError

from common.errors import StartupRefused
from common.signing.claims import CheckpointClaims
from common.signing.jws import NotTrusted, Purpose, UnknownKey, read_unverified, sign, verify
from common.signing.keys import PrivateKey, PublicKey
from orchestrator.audit.model import Checkpoint, End


class CheckpointsUnusable(StartupRefused):
    """A file of checkpoints cannot be read or believed; the message names the line."""


def make_checkpoint(end: End, *, at: datetime, key: PrivateKey) -> Checkpoint:
    """Sign how far the chain has come."""
    claims = CheckpointClaims(iat=int(at.timestamp()), seq=end.seq, hash=end.hash.hex())
    return _checkpoint(claims, sign(key, Purpose.CHECKPOINT, claims.model_dump_json()))


def line_of(checkpoint: Checkpoint) -> bytes:
    """Return a checkpoint as a line of the file, with its end."""
    return checkpoint.signature.encode() + b"\n"


def parse(line: bytes) -> Checkpoint:
    """Read a line. Raises ValueError for what is no checkpoint."""
    try:
        signature = line.decode().removesuffix("\n")
        return _checkpoint(
            CheckpointClaims.model_validate_json(read_unverified(signature, Purpose.CHECKPOINT).claims), signature
        )
    except NotTrusted as error:
        raise ValueError(str(error)) from None
    except ValidationError as error:
        raise ValueError(f"{error.error_count()} of its claims are missing, or of another kind") from None


def check_signature(checkpoint: Checkpoint, keys: Mapping[str, PublicKey]) -> str | None:
    """Return why a checkpoint is not to be believed; None when one of the keys signed it."""
    try:
        verify(checkpoint.signature, keys, Purpose.CHECKPOINT)
    except UnknownKey as unknown:
        return f"it is signed with the key {unknown.key_id}, which is not among those given"
    except NotTrusted as error:
        return str(error)
    return None


def _checkpoint(claims: CheckpointClaims, signature: str) -> Checkpoint:
    return Checkpoint(claims.seq, bytes.fromhex(claims.hash), datetime.fromtimestamp(claims.iat, UTC), signature)
