"""`chiffon agent`: run an agent on this host."""

import asyncio
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from chiffon.cli.console import say
from chiffon.cli.outcome import Exit
from chiffon.cli.parameters import collect_pairs

if TYPE_CHECKING:
    from agents.settings import AgentSettings
    from common.config import SharedSettings


def agent(
    *,
    agent_type: Annotated[str | None, Parameter(name="--type")] = None,
    slots: int | None = None,
    label: Annotated[list[str] | None, Parameter(name="--label", negative=())] = None,
    name: str | None = None,
    state_dir: Path | None = None,
    broker_url: str | None = None,
    server: str | None = None,
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] | None = None,
    log_format: Literal["json", "text"] | None = None,
) -> int:
    """Run an agent: it takes work and runs it on this host.

    ```
    chiffon agent --type infra --slots 4
    chiffon agent --label gpu_memory_gb=24 --label zone=eu
    chiffon agent --server https://chiffon.example/
    ```

    Everything can also be set in the environment (CHIFFON_AGENT_TYPE, CHIFFON_BROKER_URL, …) or in chiffon.toml; a flag
    wins. SIGTERM lets what runs come to its end for a while, then stops it.

    Parameters
    ----------
    agent_type
        The pool it belongs to; work is sent to a pool.
    slots
        How many tasks it runs at the same time.
    label
        What it has, as NAME=VALUE; VALUE may be JSON. Repeat it for more. Work can require or prefer it.
    name
        The name that is shown for it; by default the host's.
    state_dir
        Where it keeps its identity and what it could not send yet; each agent needs one of its own.
    broker_url
        The message bus: amqp://, amqps://, postgresql:// or file:///DIRECTORY.
    server
        The orchestrator's address, http:// or https://, to take work over HTTP instead of from a message bus.
    log_level
        The least important lines that are logged.
    log_format
        How lines are logged.
    """
    import uvloop

    from agents.settings import AgentSettings
    from agents.way import check_way
    from common.config import SharedSettings
    from common.logs import configure_logs

    labels = collect_pairs(label) if label else None
    settings = AgentSettings.load(
        type=agent_type, slots=slots, labels=labels, name=name, state_dir=state_dir, server_url=server
    )
    shared = SharedSettings.load(broker_url=broker_url, log_level=log_level, log_format=log_format)
    check_way(settings, shared)
    if settings.server_url is None and shared.broker_url.startswith("memory:"):
        say("chiffon: memory:// lives inside one process, so this agent could not reach any orchestrator.")
        say("Use `chiffon up`, which runs both in one process, or name another broker with CHIFFON_BROKER_URL.")
        return Exit.ERROR
    configure_logs(service="agent", level=shared.log_level, style=shared.log_format)
    logging.captureWarnings(capture=True)
    uvloop.run(_run_until_told(settings, shared))
    return Exit.OK


async def _run_until_told(settings: "AgentSettings", shared: "SharedSettings") -> None:
    from agents.main import run_agent

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    await run_agent(settings, shared, stop=stop)
