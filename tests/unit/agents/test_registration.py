"""An agent keeps its id, and no two processes have the same."""

import json
import os
from pathlib import Path
from uuid import uuid4

import pytest

from agents.identity.credential import Credential, keep_credential
from agents.identity.registration import IdentityInUse, IdentityUnusable, open_identity
from agents.settings import AgentSettings


def settings(state_dir: Path, agent_type: str = "infra") -> AgentSettings:
    return AgentSettings.load(state_dir=state_dir, type=agent_type)


def test_the_id_survives_a_restart(tmp_path: Path) -> None:
    with open_identity(settings(tmp_path), work_types=["echo"]) as first:
        pass
    with open_identity(settings(tmp_path), work_types=["echo"]) as second:
        pass

    assert first.agent_id == second.agent_id
    assert first.started_at < second.started_at


def test_agents_with_directories_of_their_own_are_different_agents(tmp_path: Path) -> None:
    with (
        open_identity(settings(tmp_path / "one"), work_types=["echo"]) as one,
        open_identity(settings(tmp_path / "two"), work_types=["echo"]) as two,
    ):
        assert one.agent_id != two.agent_id


def test_a_second_process_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    with (
        open_identity(settings(tmp_path), work_types=["echo"]),
        pytest.raises(IdentityInUse, match="CHIFFON_AGENT_STATE_DIR"),
        open_identity(settings(tmp_path), work_types=["echo"]),
    ):
        pass


def test_the_identity_of_another_type_is_refused(tmp_path: Path) -> None:
    with open_identity(settings(tmp_path, "infra"), work_types=["echo"]):
        pass

    with (
        pytest.raises(IdentityUnusable, match="type 'infra', not 'desktop'"),
        open_identity(settings(tmp_path, "desktop"), work_types=["echo"]),
    ):
        pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"agent_id": 5, "agent_type": "infra"}', '{"agent_id": "x"}'])
def test_an_identity_that_cannot_be_read_is_not_silently_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "identity.json").write_text(content)

    with (
        pytest.raises(IdentityUnusable, match=r"identity\.json"),
        open_identity(settings(tmp_path), work_types=["echo"]),
    ):
        pass

    assert (tmp_path / "identity.json").read_text() == content


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with (
        pytest.raises(IdentityUnusable, match=r"Not a directory|File exists"),
        open_identity(settings(tmp_path / "file" / "agent"), work_types=["echo"]),
    ):
        pass


def test_the_identity_is_written_whole(tmp_path: Path) -> None:
    with open_identity(settings(tmp_path), work_types=["echo"]) as identity:
        pass

    kept = json.loads((tmp_path / "identity.json").read_text())
    assert kept == {"agent_id": str(identity.agent_id), "agent_type": "infra"}
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []


def test_what_an_agent_keeps_is_for_its_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    enrolled, started = tmp_path / "enrolled", tmp_path / "started"
    before = os.umask(0)
    try:
        keep_credential(enrolled, Credential(uuid4(), "infra", "cha_x"))
        with open_identity(settings(started), work_types=["echo"]):
            pass
    finally:
        os.umask(before)

    modes = {str(path.relative_to(tmp_path)): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        "enrolled": 0o700,
        "enrolled/credential.json": 0o600,
        "enrolled/identity.json": 0o600,
        "started": 0o700,
        "started/agent.lock": 0o600,
        "started/identity.json": 0o600,
    }
