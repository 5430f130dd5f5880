"""Who may do what, as people meet it on the command line: the first token, others, an agent that enrols."""

import json
import os
from pathlib import Path
from uuid import uuid4

import httpx2

from tests.acceptance.deployment import chiffon, up


async def test_commands_find_the_token_of_up_and_nobody_else_is_let_in(tmp_path: Path, prepared: Path) -> None:
    async with up("--agents", "1", on=prepared) as running:
        at = ("--server", running.url)
        status, out, err = await chiffon("whoami", "-o", "json", *at)
        assert status == 0, err
        me = json.loads(out)
        assert {"admin", "approver"} <= set(me["roles"])
        async with httpx2.AsyncClient(base_url=running.url, trust_env=False) as stranger:
            assert (await stranger.get("/api/v1/tasks")).status_code == 401

        status, _, err = await chiffon("identities", "create", "ben", "--role", "viewer", *at)
        assert status == 0, err
        status, token, err = await chiffon("tokens", "create", "ben", *at)
        assert status == 0, err
        (tmp_path / "ben.token").write_text(token)
        as_ben = {"CHIFFON_TOKEN_FILE": str(tmp_path / "ben.token")}
        assert (await chiffon("tasks", *at, **as_ben))[0] == 0
        status, _, err = await chiffon("dispatch", "echo", *at, **as_ben)
        assert (status, "4003" in err) == (1, True)
        assert token.strip() not in err
        own = tmp_path / "own.token"
        status, out, err = await chiffon("tokens", "claim", "--file", str(own), *at, **as_ben)
        assert status == 0, err
        assert (out, own.stat().st_mode & 0o777) == ("", 0o600)
        status, _, err = await chiffon("tasks", *at, **as_ben)
        assert (status, "4001" in err) == (1, True), "the token that was made for him counts no more"
        as_ben = {"CHIFFON_TOKEN_FILE": str(own)}
        assert (await chiffon("tasks", *at, **as_ben))[0] == 0

        status, invitation, err = await chiffon("agents", "enrol", "web-1", *at)
        assert status == 0, err
        state = tmp_path / "web-1"
        enrol = ("agent", "enrol", *at, "--state-dir", str(state))
        status, out, err = await chiffon(*enrol, CHIFFON_ENROLMENT_TOKEN=invitation.strip())
        assert status == 0, err
        assert "cha_" not in out + err
        assert (state / "credential.json").stat().st_mode & 0o777 == 0o600
        again = ("agent", "enrol", *at, "--state-dir", str(tmp_path / "web-2"))
        status, _, err = await chiffon(*again, CHIFFON_ENROLMENT_TOKEN=invitation.strip())
        assert (status, "has been used" in err) == (1, True)

        status, _, _ = await chiffon("identities", "disable", "ben", *at)
        status, _, err = await chiffon("tasks", *at, **as_ben)
        assert (status, "4001" in err) == (1, True)


async def test_no_orchestrator_serves_other_hosts_without_asking_who_they_are() -> None:
    variables = {"CHIFFON_HOST": "0.0.0.0", "CHIFFON_PORT": "0", "CHIFFON_AUTHENTICATION": "off"}

    status, _, err = await chiffon("server", **variables)

    assert status == 1
    assert "CHIFFON_AUTHENTICATION is off" in err
    assert "Traceback" not in err


async def test_what_is_no_token_is_not_repeated(tmp_path: Path) -> None:
    secret = f"s3cret {uuid4()}"

    status, out, err = await chiffon("tasks", "--server", "http://127.0.0.1:1", CHIFFON_TOKEN=secret)

    assert status == 1
    assert "s3cret" not in out + err
    assert os.environ.get("CHIFFON_TOKEN") is None
