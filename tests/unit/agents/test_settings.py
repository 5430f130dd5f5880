"""Settings come from the environment, have bounds, and say what is wrong."""

from pathlib import Path

import pytest

from agents.settings import DEFAULT_ENV_ALLOW, AgentSettings
from agents.way import TwoWays, check_way
from common.config import InvalidSettings, SharedSettings


def test_the_state_is_kept_in_a_directory_for_each_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert AgentSettings.load().state_dir == tmp_path / "chiffon" / "agent-infra"
    assert AgentSettings.load(type="desktop").state_dir == tmp_path / "chiffon" / "agent-desktop"


def test_a_relative_directory_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))

    assert AgentSettings.load(state_dir="state").state_dir == tmp_path / "state"
    assert AgentSettings.load(state_dir="~/state").state_dir == tmp_path / "home" / "state"


@pytest.mark.parametrize(("measured", "name"), [("we\x1b[2Jb\n-1\u202e", "we[2Jb -1"), ("\x1b", "unnamed")])
def test_an_odd_name_of_the_host_becomes_one_that_an_orchestrator_takes(
    monkeypatch: pytest.MonkeyPatch, measured: str, name: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: measured)

    assert AgentSettings.load().name == name


def test_a_name_that_people_set_is_refused_with_control_characters() -> None:
    with pytest.raises(InvalidSettings, match="control"):
        AgentSettings.load(name="web\x1b[2J")


@pytest.mark.parametrize("value", ["PATH, HOME,", '["PATH", "HOME"]'])
def test_the_allow_list_is_names_with_commas_or_json(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("CHIFFON_AGENT_ENV_ALLOW", value)

    assert AgentSettings.load().env_allow == ["PATH", "HOME"]


def test_by_default_work_inherits_nothing_that_looks_like_a_secret() -> None:
    assert AgentSettings.load().env_allow == DEFAULT_ENV_ALLOW
    assert not [name for name in DEFAULT_ENV_ALLOW if name.startswith("CHIFFON") or "TOKEN" in name]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLOTS", "0"),
        ("SLOTS", "257"),
        ("TYPE", "Infra"),
        ("HEARTBEAT_SECONDS", "0"),
        ("RESULT_RESEND_SECONDS", "3601"),
        ("ENV_ALLOW", "A B"),
        ("ENV_ALLOW", "[1"),
    ],
)
def test_a_value_out_of_bounds_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"CHIFFON_AGENT_{name}", value)

    with pytest.raises(InvalidSettings, match=f"CHIFFON_AGENT_{name}"):
        AgentSettings.load()


def test_every_setting_is_described() -> None:
    assert [name for name, field in AgentSettings.model_fields.items() if not field.description] == []


@pytest.mark.parametrize("path", ["/", "tools", "./tools", "/opt/tools,/"])
@pytest.mark.parametrize("name", ["SANDBOX_READABLE", "SANDBOX_WRITABLE"])
def test_the_sandbox_is_never_opened_to_everything_or_to_a_place_that_depends_on_where_the_agent_started(
    monkeypatch: pytest.MonkeyPatch, name: str, path: str
) -> None:
    monkeypatch.setenv(f"CHIFFON_AGENT_{name}", path)

    with pytest.raises(InvalidSettings, match="must be absolute paths, and not /"):
        AgentSettings.load()


def test_an_agent_has_one_way_to_its_orchestrator() -> None:
    over_http = AgentSettings.load(server_url="https://chiffon.example/")
    default, named = SharedSettings(), SharedSettings(broker_url="amqp://broker/")

    check_way(over_http, default)
    check_way(AgentSettings.load(), named)
    with pytest.raises(TwoWays, match="CHIFFON_BROKER_URL"):
        check_way(over_http, named)


@pytest.mark.parametrize("name", ["enforces", "secrets"])
def test_an_agent_cannot_be_given_a_label_that_it_has_to_earn(name: str) -> None:
    with pytest.raises(InvalidSettings, match=f"the agent announces {name} itself"):
        AgentSettings.load(labels={name: ["a"]})
