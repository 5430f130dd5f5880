"""The services file is checked before anything is served."""

from pathlib import Path

import pytest

from common.broker.memory import MemoryBroker
from common.services import InvalidServices
from tests.integration.repair_requests.conftest import serving, settings_of


async def test_an_orchestrator_does_not_start_with_a_mistake_in_its_services(ledger_url: str, tmp_path: Path) -> None:
    settings = settings_of(ledger_url, tmp_path)
    file = tmp_path / "services.toml"
    file.write_text(file.read_text().replace('project = "shop"', 'project = "Shop"'))

    with pytest.raises(InvalidServices) as caught:
        async with serving(settings, MemoryBroker()):
            pass

    assert len(caught.value.mistakes) == 6
    assert all(line.startswith(f"{file}: [service.") and "project" in line for line in caught.value.mistakes)
