"""What an agent proves with who it is: the credential that it got when it enrolled, on disk for its own user only."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from agents.identity.registration import IDENTITY_FILE
from common.durable import write_file
from common.errors import StartupRefused
from common.private import check_private, make_private

CREDENTIAL_FILE = "credential.json"


class CredentialUnusable(StartupRefused):
    """What is on disk is not an agent's credential, or cannot be written."""


class IsSomebody(StartupRefused):
    def __init__(self, state_dir: Path) -> None:
        super().__init__(
            f"{state_dir} is the state of an agent already. Choose another with --state-dir, or remove it if that "
            "agent is gone for good."
        )


@dataclass(frozen=True, slots=True)
class Credential:
    """The identity of an enrolled agent, its token, and the keys (PEM) that it is to trust."""

    agent_id: UUID
    agent_type: str
    token: str = field(repr=False)
    trusted_keys: Sequence[str] = ()


def check_is_nobody(state_dir: Path) -> None:
    """Raise `IsSomebody` when a directory is the state of an agent."""
    if (state_dir / IDENTITY_FILE).exists() or (state_dir / CREDENTIAL_FILE).exists():
        raise IsSomebody(state_dir)


def keep_credential(state_dir: Path, credential: Credential) -> None:
    """Make a directory the state of the agent that has just enrolled; it is on disk when this returns."""
    try:
        make_private(state_dir)
        check_private(state_dir, "The agent's state directory")
        _write(state_dir / CREDENTIAL_FILE, {"token": credential.token})
        # The identity last: with it, the directory is an agent's.
        _write(state_dir / IDENTITY_FILE, {"agent_id": str(credential.agent_id), "agent_type": credential.agent_type})
    except OSError as error:
        raise CredentialUnusable(f"The credential cannot be kept in {state_dir}: {error.strerror}.") from None


def find_token(state_dir: Path) -> str | None:
    """Return an agent's own token; None when it has not enrolled. Raises `CredentialUnusable`."""
    path = state_dir / CREDENTIAL_FILE
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return str(kept["token"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CredentialUnusable(f"{path} is not an agent's credential ({type(error).__name__}).") from None


def _write(path: Path, content: Mapping[str, object]) -> None:
    write_file(path, json.dumps(content).encode())
