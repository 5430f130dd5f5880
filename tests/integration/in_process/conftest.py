"""The brokers over which work in one process runs."""

from pathlib import Path

import pytest


@pytest.fixture(params=["memory", "file", "postgresql", "amqp"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    match request.param:
        case "memory":
            return "memory://"
        case "file":
            return (tmp_path / "bus").as_uri()
        case "postgresql":
            ledger: str = request.getfixturevalue("ledger_url")
            return ledger
        case _:
            amqp: str = request.getfixturevalue("amqp_url")
            return amqp
