"""Settings come from the environment over a file, and a wrong one is refused with what is allowed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from agents.settings import AgentSettings
from common.broker.connect import SCHEMES, UnknownBroker, open_broker
from common.config import InvalidSettings, SharedSettings
from orchestrator.settings import OrchestratorSettings


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("CHIFFON_CONFIG", "CHIFFON_BROKER_URL", "CHIFFON_DATABASE_URL", "CHIFFON_PORT", "CHIFFON_LOG_LEVEL"):
        monkeypatch.delenv(name, raising=False)


def write(text: str, name: str = "chiffon.toml") -> None:
    Path(name).write_text(text, encoding="utf-8")


def test_every_setting_has_a_default_and_a_description() -> None:
    for kind in (SharedSettings, OrchestratorSettings, AgentSettings):
        kind.load()
        assert all(field.description for field in kind.model_fields.values())


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    assert OrchestratorSettings.load().host == "127.0.0.1"


def test_each_process_reads_its_own_table_and_the_top_of_the_file() -> None:
    write('broker_url = "memory://"\n[orchestrator]\nport = 9000\n[agent]\nslots = 7\n')

    assert SharedSettings.load().broker_url == "memory://"
    assert OrchestratorSettings.load().port == 9000
    assert AgentSettings.load().slots == 7


def test_the_environment_wins_over_the_file_and_the_command_line_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    write("[orchestrator]\nport = 9000\n")
    monkeypatch.setenv("CHIFFON_PORT", "9001")

    assert OrchestratorSettings.load().port == 9001
    assert OrchestratorSettings.load(port=9002).port == 9002
    assert OrchestratorSettings.load(port=None).port == 9001


def test_a_wrong_value_is_refused_with_its_name_its_value_and_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIFFON_PORT", "70000")
    monkeypatch.setenv("CHIFFON_LEASE_SECONDS", "soon")

    with pytest.raises(InvalidSettings) as caught:
        OrchestratorSettings.load()

    message = str(caught.value)
    assert "CHIFFON_PORT or [orchestrator] port = '70000': Input should be less than or equal to 65535" in message
    assert "CHIFFON_LEASE_SECONDS or [orchestrator] lease_seconds = 'soon'" in message


def test_a_wrong_value_is_named_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIFFON_AGENT_SLOTS", "many")

    with pytest.raises(InvalidSettings) as caught:
        AgentSettings.load()

    [_, line] = str(caught.value).splitlines()
    assert line.startswith("  CHIFFON_AGENT_SLOTS or [agent] slots = 'many': ")


def test_a_name_that_does_not_exist_is_refused() -> None:
    write("[agent]\nslotz = 7\n")

    with pytest.raises(InvalidSettings, match="slotz"):
        AgentSettings.load()


def test_a_password_in_a_wrong_url_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIFFON_DATABASE_URL", "mysql://me:hunter2@host/db")

    with pytest.raises(InvalidSettings) as caught:
        OrchestratorSettings.load()

    assert "CHIFFON_DATABASE_URL" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("kafka://me:hunter2@host", "kafka:// is not a message bus"),
        ("file:///var/lib/hunter2/bus", "file:// is not a message bus"),
        ("AMQP://me:hunter2@host", "AMQP:// is not a message bus"),
        ("me:hunter2@host", "the URL has no scheme"),
        ("me:hunter2@amqp://host", "the URL has no scheme"),
    ],
)
def test_a_url_of_no_message_bus_is_refused_with_those_that_are_allowed(
    monkeypatch: pytest.MonkeyPatch, url: str, problem: str
) -> None:
    monkeypatch.setenv("CHIFFON_BROKER_URL", url)

    with pytest.raises(InvalidSettings) as caught:
        SharedSettings.load()

    message = str(caught.value)
    assert f"CHIFFON_BROKER_URL or broker_url = (hidden): {problem}; allowed: " in message
    assert [scheme for scheme in SCHEMES if f"{scheme}://" not in message] == []
    assert "hunter2" not in message


async def test_a_broker_is_opened_for_a_scheme_that_is_allowed_only() -> None:
    with pytest.raises(UnknownBroker, match="file:// is not a message bus"):
        async with open_broker("file:///var/lib/chiffon/bus", name="test"):
            pass


def test_a_file_that_was_named_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHIFFON_CONFIG", "nowhere.toml")

    with pytest.raises(InvalidSettings, match=r"nowhere\.toml"):
        SharedSettings.load()


@pytest.mark.parametrize("text", ["port = = 1", f"port = {'9' * 5000}", f"port = {'{a=' * 5000}"])
def test_a_file_that_is_not_toml_is_refused(text: str) -> None:
    write(text)

    with pytest.raises(InvalidSettings, match="TOML"):
        SharedSettings.load()


@pytest.mark.parametrize("text", ["hunter2", "{", "zone=eu", "[" * 100_000, "{'a': 1}"], ids=lambda text: text[:8])
@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("CHIFFON_AGENT_LABELS or [agent] labels", AgentSettings.load),
        ("CHIFFON_AGENT_SECRETS or [agent] secrets", AgentSettings.load),
        ("CHIFFON_AGENT_CONFINEMENT or [agent] confinement", AgentSettings.load),
        ("CHIFFON_ROUTES or [orchestrator] routes", OrchestratorSettings.load),
    ],
    ids=["labels", "secrets", "confinement", "routes"],
)
def test_a_text_that_is_no_json_where_json_is_wanted_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[], object], text: str
) -> None:
    monkeypatch.setenv(name.split()[0], text)

    with pytest.raises(InvalidSettings) as caught:
        load()

    assert str(caught.value).startswith(f"These settings are not usable:\n  {name} = ")
    if "secrets" in name:
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "load"), [("agent", AgentSettings.load), ("orchestrator", OrchestratorSettings.load)]
)
@pytest.mark.parametrize("value", ["5", '"text"', "[1, 2]", "[{}]"])
def test_a_table_that_is_none_is_refused(table: str, load: Callable[[], object], value: str) -> None:
    write(f"{table} = {value}\n")

    with pytest.raises(InvalidSettings, match=f"{table} must be a table"):
        load()
