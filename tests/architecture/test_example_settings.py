"""chiffon.example.toml: it can be loaded as it stands, and what it shows are the defaults."""

import tomllib
from typing import Any

import pytest

from agents.settings import AgentSettings
from chiffon.rabbitmq.settings import RabbitmqSettings
from common.config import Settings, SharedSettings
from orchestrator.settings import OrchestratorSettings
from tests.architecture.source import ROOT

# Their defaults are those of the host that the agent runs on, or follow from another setting, or there is none.
NOT_SHOWN = {
    "name",
    "state_dir",
    "server_url",
    "broker_identities",
    "admin_password",
    "admin_password_file",
    "playbooks_dir",
    "compose_root",
    "policy_file",
    "run_as",
    "tls_cert_file",
    "tls_key_file",
    "signing_keys_dir",
    "audit_checkpoints_file",
    "services_file",
    "artifact_keep_days",
    "trusted_keys",
}


@pytest.mark.parametrize("settings", [SharedSettings, OrchestratorSettings, AgentSettings, RabbitmqSettings])
def test_the_example_shows_every_setting_with_its_default(
    settings: type[Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(settings.model_fields):
        monkeypatch.delenv(f"{settings.model_config['env_prefix']}{name}".upper(), raising=False)
    monkeypatch.delenv("CHIFFON_CONFIG", raising=False)

    shown = _example(settings.table)

    assert set(shown) == set(settings.model_fields) - NOT_SHOWN
    assert settings.load(**shown) == settings.load()


def _example(table: str | None) -> dict[str, Any]:
    values = tomllib.loads((ROOT / "chiffon.example.toml").read_text(encoding="utf-8"))
    part = values if table is None else values[table]
    return {name: value for name, value in part.items() if table is not None or not isinstance(value, dict)}
