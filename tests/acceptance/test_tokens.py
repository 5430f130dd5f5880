"""Who may do what, as people meet it on the command line: the first token, others, an agent that enrols."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest

from tests.acceptance.deployment import Up, chiffon, up
from tests.command_lines import said


@pytest.fixture
async def running(prepared: Path) -> AsyncIterator[Up]:
    async with up("--agents", "1", on=prepared) as opened:
        yield opened


def test_commands_find_the_token_of_up_and_nobody_else_is_let_in(tmp_path: Path, running: Up) -> None:
    at = ("--server", running.url)
    status, out, err = said("whoami", "-o", "json", *at)
    assert status == 0, err
    me = json.loads(out)
    assert {"admin", "approver"} <= set(me["roles"])
    assert httpx2.get(f"{running.url}/api/v1/tasks", trust_env=False).status_code == 401

    status, _, err = said("identities", "create", "ben", "--role", "viewer", *at)
    assert status == 0, err
    status, token, err = said("tokens", "create", "ben", *at)
    assert status == 0, err
    (tmp_path / "ben.token").write_text(token)
    as_ben = {"CHIFFON_TOKEN_FILE": str(tmp_path / "ben.token")}
    assert said("tasks", *at, **as_ben)[0] == 0
    status, _, err = said("dispatch", "echo", *at, **as_ben)
    assert (status, "4003" in err) == (1, True)
    assert token.strip() not in err
    own = tmp_path / "own.token"
    status, out, err = said("tokens", "claim", "--file", str(own), *at, **as_ben)
    assert status == 0, err
    assert (out, own.stat().st_mode & 0o777) == ("", 0o600)
    status, _, err = said("tasks", *at, **as_ben)
    assert (status, "4001" in err) == (1, True), "the token that was made for him counts no more"
    as_ben = {"CHIFFON_TOKEN_FILE": str(own)}
    assert said("tasks", *at, **as_ben)[0] == 0

    status, invitation, err = said("agents", "enrol", "web-1", *at)
    assert status == 0, err
    state = tmp_path / "web-1"
    enrol = ("agent", "enrol", *at, "--state-dir", str(state))
    status, out, err = said(*enrol, CHIFFON_ENROLMENT_TOKEN=invitation.strip())
    assert status == 0, err
    assert "cha_" not in out + err
    assert (state / "credential.json").stat().st_mode & 0o777 == 0o600
    again = ("agent", "enrol", *at, "--state-dir", str(tmp_path / "web-2"))
    status, _, err = said(*again, CHIFFON_ENROLMENT_TOKEN=invitation.strip())
    assert (status, "has been used" in err) == (1, True)

    status, _, _ = said("identities", "disable", "ben", *at)
    status, _, err = said("tasks", *at, **as_ben)
    assert (status, "4001" in err) == (1, True)


async def test_no_orchestrator_serves_other_hosts_without_asking_who_they_are() -> None:
    variables = {"CHIFFON_HOST": "0.0.0.0", "CHIFFON_PORT": "0", "CHIFFON_AUTHENTICATION": "off"}

    status, _, err = await chiffon("server", **variables)

    assert status == 1
    assert "CHIFFON_AUTHENTICATION is off" in err
    assert "Traceback" not in err


def test_what_is_no_token_is_not_repeated() -> None:
    secret = f"s3cret {uuid4()}"

    status, out, err = said("tasks", "--server", "http://127.0.0.1:1", CHIFFON_TOKEN=secret)

    assert status == 1
    assert "s3cret" not in out + err
    assert os.environ.get("CHIFFON_TOKEN") is None
