"""The keys of an orchestrator that is set up by a program rather than by a person."""

from datetime import UTC, datetime
from pathlib import Path

from orchestrator.signing.directory import add_key, read_keys


def public_keys(directory: Path) -> bytes:
    """Return the public keys of a directory in PEM, to be given to agents."""
    return b"".join(stored.key.public.pem() for stored in read_keys(directory).keys)


def ensure_key(directory: Path) -> None:
    """Make a first key where there is none. Raises `KeysUnusable` and `OSError`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not read_keys(directory).keys:
        add_key(directory, signs_from=datetime.now(UTC))
