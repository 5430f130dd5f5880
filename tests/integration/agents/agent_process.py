"""An agent in a process of its own, as in production, so that it can be killed."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import psutil

from agents.processes.keepers import PROGRAM

ROOT = Path(__file__).parents[3]
END_SECONDS = 40


class AgentProcess:
    """`chiffon agent`, with its log in a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def sees(self, path: Path) -> Path:
        """Return how a path of the agent's is called here, where it has mounts of its own."""
        return Path(f"/proc/{self._process.pid}/root{path}")

    async def ended(self) -> int:
        """Wait until it has ended by itself, and return its exit status."""
        async with asyncio.timeout(END_SECONDS):
            return await self._process.wait()

    async def kill(self, *, with_keepers: bool = False) -> None:
        """As a crash would: nothing in it gets a chance. `with_keepers`: nor does its guardian, or any keeper."""
        # It must not see its keepers die first, which would be one more thing for it to write down.
        self._process.send_signal(signal.SIGSTOP)
        guardians = [child for child in psutil.Process(self._process.pid).children() if _is_guardian(child)]
        for guardian in guardians if with_keepers else ():
            keepers = guardian.children()
            for process in (guardian, *keepers):
                process.kill()
        self._process.send_signal(signal.SIGKILL)
        await self._process.wait()

    def pause(self) -> None:
        """As a host that hangs would: it does nothing, and does not know."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)


def _is_guardian(process: psutil.Process) -> bool:
    return PROGRAM in process.cmdline()


@asynccontextmanager
async def agent_process(
    url: str, state_dir: Path, *, inside: Sequence[str] = (), **settings: object
) -> AsyncIterator[AgentProcess]:
    """Run an agent on the bus, or over the queue API of the server, that `url` names.

    `inside` is a command that becomes the one that follows it, after it has prepared its surroundings.
    """
    log = state_dir.with_name(f"{state_dir.name}.log")
    way = "CHIFFON_AGENT_SERVER_URL" if url.startswith("http") else "CHIFFON_BROKER_URL"
    given = {"signatures": "off", "state_dir": state_dir, "heartbeat_seconds": 0.5, "stop_grace_seconds": 0, **settings}
    environment = {f"CHIFFON_AGENT_{name}".upper(): str(value) for name, value in given.items()}
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *inside,
            sys.executable,
            "-m",
            "chiffon",
            "agent",
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(ROOT / "src"),
                way: url,
                **environment,
            },
            stdout=output,
            stderr=output,
        )
    try:
        yield AgentProcess(process, log)
    finally:
        if process.returncode is None:
            process.terminate()
            process.send_signal(signal.SIGCONT)
        await process.wait()
