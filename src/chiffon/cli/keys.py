"""`chiffon keys`: the keys with which an orchestrator signs what agents may run. All of it happens in a directory."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import App

from chiffon.cli.console import print_json, print_table, put, say
from chiffon.cli.options import AS_TABLE, Flag, Printing
from chiffon.cli.outcome import Exit
from common.errors import StartupRefused

app = App(
    name="keys", help="Make, list and retire the keys that sign what agents may run.", result_action="return_value"
)

# So long may an orchestrator go on signing with a key after its successor began: it reads the directory every 2 s.
HEARD_SECONDS = 60.0


@app.command(name="list")
def list_keys(
    *, directory: Path | None = None, pem: Annotated[bool, Flag] = False, printing: Printing = AS_TABLE
) -> int:
    """List the keys, and which of them signs.

    ```
    chiffon keys list --directory /var/lib/chiffon/keys
    chiffon keys list --pem > trusted_keys.pem
    ```

    Parameters
    ----------
    directory
        Where the keys are; by default CHIFFON_SIGNING_KEYS_DIR.
    pem
        Print the public keys, for agents to trust, and nothing else.
    """
    from orchestrator.signing.directory import read_keys

    stored, now = read_keys(_directory(directory)), datetime.now(UTC)
    if pem:
        put(*(line for one in stored.keys for line in one.key.public.pem().decode().splitlines()))
        return Exit.OK
    signing = stored.signing(now)
    rows = [
        (one.key.key_id, "signs" if one is signing else "known", one.signs_from.isoformat(timespec="seconds"))
        for one in stored.keys
    ] + [(key_id, "retired", "") for key_id in stored.retired]
    if printing.is_json:
        print_json([{"key_id": key_id, "state": state, "signs_from": since or None} for key_id, state, since in rows])
        return Exit.OK
    print_table(("KEY", "STATE", "SIGNS FROM"), rows)
    return Exit.OK


@app.command
def init(*, directory: Path | None = None, public: Path | None = None) -> int:
    """Make the first key where there is none, and write the public keys to a file; for programs that set things up.

    ```
    chiffon keys init --directory /var/lib/chiffon/keys --public /etc/chiffon/trusted_keys.pem
    ```

    Parameters
    ----------
    directory
        Where the keys are; by default CHIFFON_SIGNING_KEYS_DIR. It is made when it does not exist.
    public
        The file for agents to trust.
    """
    from orchestrator.signing.first_key import ensure_key, public_keys

    place = _directory(directory)
    ensure_key(place)
    if public is not None:
        public.write_bytes(public_keys(place))
        public.chmod(0o644)  # agents may run as another user, and the keys are public
    return Exit.OK


@app.command
def rotate(*, directory: Path | None = None, delay: float = 60.0) -> int:
    """Make a new key. It signs after a while, so that agents hear of it before; the old one goes on being trusted.

    ```
    chiffon keys rotate
    ```

    Parameters
    ----------
    directory
        Where the keys are; by default CHIFFON_SIGNING_KEYS_DIR. It is made when it does not exist.
    delay
        Seconds until the new key signs. The first key of a directory signs at once.
    """
    from orchestrator.signing.directory import add_key, read_keys

    place, now = _directory(directory), datetime.now(UTC)
    is_first = not place.exists() or not read_keys(place).keys
    signs_from = now if is_first else now + timedelta(seconds=delay)
    key = add_key(place, signs_from=signs_from)
    put(key.key_id)
    if is_first:
        say(f"The first key of {place}. Give its public half to agents: chiffon keys list --pem")
    else:
        say(f"It signs from {signs_from.isoformat(timespec='seconds')}. A minute later its predecessor may be retired.")
    return Exit.OK


@app.command
def retire(key_id: str, *, directory: Path | None = None, now: Annotated[bool, Flag] = False) -> int:
    """Delete a key; agents that hear of it never believe it again.

    ```
    chiffon keys retire 3b8e2f0c9d7a41568c0e1f2a3b4c5d6e
    ```

    Parameters
    ----------
    key_id
        The key, as `chiffon keys list` names it.
    directory
        Where the keys are; by default CHIFFON_SIGNING_KEYS_DIR.
    now
        Do not wait until every orchestrator signs with another: the key is in the wrong hands.
    """
    from orchestrator.signing.directory import retire_key

    retire_key(_directory(directory), key_id, now=datetime.now(UTC), heard_for=0.0 if now else HEARD_SECONDS)
    say(f"{key_id} is retired.")
    return Exit.OK


def _directory(given: Path | None) -> Path:
    from orchestrator.settings import OrchestratorSettings

    directory = OrchestratorSettings.load(signing_keys_dir=given).signing_keys_dir
    if directory is None:
        raise StartupRefused("Where are the keys? Give --directory, or set CHIFFON_SIGNING_KEYS_DIR.")
    return directory.expanduser()
