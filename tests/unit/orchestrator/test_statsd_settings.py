"""Where metrics are sent to can be said under the names that the contract of runs has for it."""

from pathlib import Path

import pytest

from common.config import InvalidSettings
from orchestrator.settings import OrchestratorSettings

NAMES = {
    "CHIFFON_STATSD_HOST": "statsd_host",
    "ORCHESTRATOR_STATSD_HOST": "statsd_host",
    "STATSD_HOST": "statsd_host",
    "CHIFFON_STATSD_PORT": "statsd_port",
    "ORCHESTRATOR_STATSD_PORT": "statsd_port",
    "STATSD_PORT": "statsd_port",
    "CHIFFON_STATSD_PREFIX": "statsd_prefix",
    "ORCHESTRATOR_METRICS_PREFIX": "statsd_prefix",
    "STATSD_PREFIX": "statsd_prefix",
}


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", NAMES)
def test_each_name_is_read(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "8126")

    assert str(getattr(OrchestratorSettings.load(), NAMES[name])) == "8126"


def test_our_own_name_wins_over_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATSD_HOST", "c")
    monkeypatch.setenv("ORCHESTRATOR_STATSD_HOST", "b")
    assert OrchestratorSettings.load().statsd_host == "b"

    monkeypatch.setenv("CHIFFON_STATSD_HOST", "a")

    assert OrchestratorSettings.load().statsd_host == "a"
    assert OrchestratorSettings.load(statsd_host="given").statsd_host == "given"


# Of a host any text may be one.
WRONG = {"statsd_port": "many", "statsd_prefix": "a b"}


def refusal(**overrides: str) -> str:
    """Return why the settings are refused."""
    with pytest.raises(InvalidSettings) as refused:
        OrchestratorSettings.load(**overrides)
    return str(refused.value)


def told(setting: str) -> str:
    """Return how a wrong value is told, up to what is wrong with it."""
    return f"not usable:\n  CHIFFON_{setting.upper()} or [orchestrator] {setting} = {WRONG[setting]!r}: "


@pytest.mark.parametrize("name", [name for name, setting in NAMES.items() if setting in WRONG])
def test_a_wrong_value_is_told_by_our_own_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, WRONG[NAMES[name]])

    assert told(NAMES[name]) in refusal()


@pytest.mark.parametrize("setting", WRONG)
def test_a_wrong_value_of_the_file_or_of_a_command_is_told_so_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str
) -> None:
    file = tmp_path / "chiffon.toml"
    file.write_text(f'[orchestrator]\n{setting} = "{WRONG[setting]}"\n')
    file.chmod(0o600)

    of_a_command = refusal(**{setting: WRONG[setting]})
    monkeypatch.setenv("CHIFFON_CONFIG", str(file))

    assert told(setting) in of_a_command
    assert told(setting) in refusal()


def test_our_prefix_is_not_put_before_a_name_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in WRONG:
        monkeypatch.setenv(f"CHIFFON_CHIFFON_{setting.upper()}", WRONG[setting])
    monkeypatch.setenv("CHIFFON_STATSD_PORT", "8126")

    assert OrchestratorSettings.load().statsd_port == 8126
