"""What an agent logs about itself holds none of its secrets, whoever wrote the line."""

import io
import logging
from pathlib import Path

from tests.integration.agents.conftest import StartAgent

SECRET = "correct horse/battery+staple"


async def test_a_line_that_an_agent_logs_holds_no_secret_of_its_settings(
    start_agent: StartAgent, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text(SECRET)
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    logging.getLogger().addHandler(handler)
    try:
        await start_agent(secrets={"key": {"file": str(tmp_path / "secret")}})
        logging.getLogger("a.library").warning("it is %s", SECRET)
    finally:
        logging.getLogger().removeHandler(handler)

    assert "it is [redacted]\n" in written.getvalue()
    assert SECRET not in written.getvalue()
