"""The agent as process 1 of a real namespace of process ids, as in a container: nothing is left, alive or dead."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import psutil
import pytest

from tests.eventually import eventually
from tests.integration.agents.agent_process import AgentProcess, agent_process
from tests.integration.agents.queue_server import FakeJob, QueueServer
from tests.stress_attempts import KINDS, PARAMETERS, READY

# Its children are process 1 and, from then on, all that process 1 starts; /proc there shows those alone.
NAMESPACE = ("unshare", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc")


class Container:
    """An agent that is process 1 of a namespace, seen from outside."""

    def __init__(self, agent: AgentProcess, process_one: psutil.Process) -> None:
        self.agent = agent
        self.one = process_one
        self._namespace = _namespace(process_one.pid)

    @property
    def processes(self) -> set[int]:
        """All processes in there, also dead ones that nobody has collected."""
        return {pid for pid in psutil.pids() if _namespace(pid) == self._namespace}

    @property
    def own(self) -> set[int]:
        """What has to be there: process 1, the command, and the guardian of its programs."""
        return {self.one.pid, self.command.pid, *(child.pid for child in self.command.children())}

    @property
    def command(self) -> psutil.Process:
        """The agent itself, which process 1 has started."""
        return self._children()[0]

    @property
    def orphans(self) -> list[psutil.Process]:
        return self._children()[1:]

    def _children(self) -> list[psutil.Process]:
        """Return the children of process 1, the oldest first; the ids of processes begin anew at 32,768."""
        return sorted(self.one.children(), key=lambda child: float(child.create_time()))

    def is_clean(self) -> bool:
        return self.processes == self.own and len(self.own) == 3

    async def run(self, *words: str) -> None:
        """Run a command in there, as `docker exec` does."""
        enter = ("nsenter", f"--target={self.one.pid}", "--user", "--preserve-credentials", "--pid", "--mount")
        process = await asyncio.create_subprocess_exec(*enter, *words)
        assert await process.wait() == 0


def _namespace(pid: int) -> str:
    """Return the namespace of a process; a dead one has it still, and one that is gone has none."""
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - it names no file
    return ""


def _is_ready(job: FakeJob) -> bool:
    return READY in job.output()


@pytest.fixture
async def server() -> AsyncIterator[QueueServer]:
    async with QueueServer().serving() as serving:
        yield serving


@asynccontextmanager
async def container(url: str, state: Path) -> AsyncIterator[Container]:
    async with agent_process(url, state, inside=NAMESPACE, slots=4, kill_grace_seconds=0.3) as agent:
        [one] = await eventually(lambda: psutil.Process(agent.pid).children(), timeout=30)
        try:
            yield Container(agent, one)
        finally:
            with suppress(psutil.NoSuchProcess):
                one.terminate()
            await agent.ended()


async def test_as_process_1_an_agent_leaves_nothing_of_any_attempt_neither_alive_nor_dead(
    server: QueueServer, tmp_path: Path
) -> None:
    async with container(server.url, tmp_path / "agent") as inside:
        jobs = {
            kind: server.shell(script.replace("MARK", str(900_000 + number)), **PARAMETERS.get(kind, {}))
            for number, (kind, script) in enumerate(KINDS.items())
        }
        for job in (job for kind, job in jobs.items() if READY in KINDS[kind]):
            await eventually(partial(_is_ready, job), timeout=60)
            job.cancelled = True
        await eventually(lambda: all(job.end for job in jobs.values()), timeout=120)

        await eventually(inside.is_clean, timeout=20)
        assert os.getpid() not in inside.processes
        assert inside.one.cmdline()[1:] == ["-m", "chiffon", "agent"]
        after = server.shell("echo $PPID; ls -d /proc/[0-9]* | wc -l")
        await eventually(lambda: after.end)

        # What others have left there is collected, too.
        await inside.run("sh", "-c", "for n in 1 2 3; do (sleep 600 &); done")
        orphans = inside.orphans
        for orphan in orphans:
            orphan.kill()

        assert len(orphans) == 3
        await eventually(inside.is_clean)
    assert int(after.output().split()[1]) <= 7, "the program sees the processes of its container, and few are left"


async def test_a_container_that_is_stopped_ends_its_work_and_hands_the_signal_on(
    server: QueueServer, tmp_path: Path
) -> None:
    async with container(server.url, tmp_path / "agent") as inside:
        job = server.shell("setsid -f env -i /bin/sleep 600; echo ready; exec sleep 600")
        await eventually(lambda: "ready" in job.output(), timeout=30)

        inside.one.send_signal(signal.SIGTERM)
        status = await inside.agent.ended()

    assert status == 0
    assert inside.processes == set()
    assert job.end is not None
    assert job.end["retryable"]
    assert "agent.stopped" in inside.agent.log


async def test_when_the_agent_is_killed_its_container_ends_with_all_that_was_in_it(
    server: QueueServer, tmp_path: Path
) -> None:
    async with container(server.url, tmp_path / "agent") as inside:
        job = server.shell("setsid -f env -i /bin/sleep 600; echo ready; exec sleep 600")
        await eventually(lambda: "ready" in job.output(), timeout=30)

        inside.command.kill()
        status = await inside.agent.ended()

    assert status == 128 + signal.SIGKILL
    assert inside.processes == set()
