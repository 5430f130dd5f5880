"""An agent's settings for files and directories have bounds, and say what is wrong."""

from pathlib import Path

import pytest

from agents.settings import AgentSettings
from common.config import InvalidSettings


def test_without_settings_no_work_begins_outside_of_its_workspace() -> None:
    settings = AgentSettings.load()

    assert (settings.cwd_allow, settings.compose_root) == ([], None)
    assert (settings.max_artifact_bytes, settings.max_artifacts_bytes) == (64 * 1024**2, 4 * 1024**3)


@pytest.mark.parametrize("value", ["/srv/a, /srv/b", '["/srv/a", "/srv/b"]'])
def test_directories_are_named_with_commas_or_json(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CHIFFON_AGENT_CWD_ALLOW", value)

    assert AgentSettings.load().cwd_allow == [Path("/srv/a"), Path("/srv/b")]


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("CWD_ALLOW", "srv", "absolute paths, and not /"),
        ("CWD_ALLOW", "/", "absolute paths, and not /"),
        ("MAX_ARTIFACT_BYTES", "-1", "greater than or equal to 0"),
        ("MAX_ARTIFACTS_BYTES", str(1024**4 + 1), "less than or equal to"),
    ],
)
def test_what_is_not_allowed_is_said(monkeypatch: pytest.MonkeyPatch, name: str, value: str, problem: str) -> None:
    monkeypatch.setenv(f"CHIFFON_AGENT_{name}", value)

    with pytest.raises(InvalidSettings, match=problem):
        AgentSettings.load()


def test_a_relative_root_of_compose_services_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    assert AgentSettings.load(compose_root="services").compose_root == tmp_path / "services"
