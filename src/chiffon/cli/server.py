"""`chiffon server`: run an orchestrator."""

import asyncio
import logging
from typing import Literal

from chiffon.cli.console import say
from chiffon.cli.outcome import Exit


def server(
    *,
    host: str | None = None,
    port: int | None = None,
    database_url: str | None = None,
    broker_url: str | None = None,
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = None,
    log_format: Literal["json", "text"] | None = None,
) -> int:
    """Run an orchestrator.

    ```
    chiffon server --port 8420 --log-format text
    ```

    Everything can also be set in the environment (CHIFFON_PORT, CHIFFON_DATABASE_URL, …) or in chiffon.toml; a flag
    wins. It does not start when the database, its schema or the broker is not right. SIGTERM stops it gracefully.

    Parameters
    ----------
    host
        The address to listen on.
    port
        The port to listen on.
    database_url
        The PostgreSQL database that holds the ledger.
    broker_url
        The message bus: amqp://, amqps:// or postgresql://.
    log_level
        The least important lines that are logged.
    log_format
        How lines are logged.
    """
    import uvloop

    from common.config import SharedSettings
    from common.garbage import settle
    from common.logs import configure_logs
    from orchestrator.main import serve
    from orchestrator.settings import OrchestratorSettings

    settings = OrchestratorSettings.load(host=host, port=port, database_url=database_url)
    shared = SharedSettings.load(broker_url=broker_url, log_level=log_level, log_format=log_format)
    if shared.broker_url.startswith("memory:"):
        say("chiffon: memory:// lives inside one process, so no agent could reach this orchestrator.")
        say("Use `chiffon up`, which runs both in one process, or name another broker with CHIFFON_BROKER_URL.")
        return Exit.ERROR
    configure_logs(service="orchestrator", level=shared.log_level, style=shared.log_format)
    logging.captureWarnings(capture=True)

    async def run() -> None:
        started = asyncio.Event()
        settling = asyncio.create_task(settle(started), name="settle")
        try:
            await serve(settings, shared, started=started)
        finally:
            settling.cancel()

    uvloop.run(run())
    return Exit.OK
