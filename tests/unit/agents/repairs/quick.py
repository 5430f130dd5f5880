"""Start the programs of a repair without what costs most of it: git without a keeper, and the played docker at all.

A repair runs some forty programs, and a keeper costs more than git itself. What it guards, tests of `agents.processes`
see; here it guards the commands of patches, and all else that is neither git nor the played docker.
"""

import asyncio
import os
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from agents.processes.keepers import Keeper, Keepers, Launch
from tests.unit.agents.repairs.fake_docker import Player, player_of

NOTHING: Callable[[], object] = dict


class QuickKeepers(Keepers):
    """`guarding` is called before the first program that a keeper starts. With `guards_git`, git is one, too."""

    def __init__(self, *, guards_git: bool = False, guarding: Callable[[], object] = NOTHING) -> None:
        super().__init__()
        self._guards_git = guards_git
        self._guarding = guarding

    async def start(
        self, launch: Launch, files: Sequence[int], *, telling: Callable[[], None] = lambda: None
    ) -> Keeper:
        path = next((path for path in launch.paths if os.access(path, os.X_OK)), "")
        player = await asyncio.to_thread(player_of, Path(path)) if path else None
        if player is not None:
            return Played(player, launch, files)
        if launch.argv[0] == "git" and launch.user is None and not self._guards_git:
            return Plain(path, launch, files)
        self._guarding()
        self._guarding = NOTHING
        return await super().start(launch, files, telling=telling)


class Unkept(Keeper, ABC):
    """What a repair takes for a keeper, with none behind it."""

    def __init__(self) -> None:
        super().__init__(socket.socket())

    @abstractmethod
    def stop(self) -> None:
        """End it, if it has not ended."""

    def has_ended(self, code: int) -> None:
        if not self.ended.done():
            self.ended.set_result(code)
            self.clean.set_result(0)

    def terminate(self) -> None:
        self.stop()

    async def kill(self) -> None:
        self.stop()
        await asyncio.wait({self.ended})

    def close(self) -> None:
        self.stop()
        self._channel.close()


class Played(Unkept):
    """A call of docker or compose, made by a task in place of a program."""

    def __init__(self, player: Player, launch: Launch, files: Sequence[int]) -> None:
        super().__init__()
        self._files = [os.dup(file) for file in files]
        self._calling = asyncio.create_task(self._call(player, launch), name="played docker")
        self._calling.add_done_callback(self._over)

    async def _call(self, player: Player, launch: Launch) -> int:
        _, output, errors = self._files
        reader, writer = await asyncio.open_connection("127.0.0.1", player.port)
        try:
            writer.write(player.question(launch.argv[1:], launch.env))
            async for line in reader:
                kind, text = line[:1], line[1:]
                if kind == b"x":
                    return int(text)
                os.write(output if kind == b"o" else errors, text)
            return 125
        finally:
            writer.close()

    def _over(self, calling: "asyncio.Task[int]") -> None:
        for file in self._files:
            os.close(file)
        self.has_ended(-9 if calling.cancelled() else calling.result())

    def stop(self) -> None:
        self._calling.cancel()


class Plain(Unkept):
    """A child of this process."""

    def __init__(self, path: str, launch: Launch, files: Sequence[int]) -> None:
        super().__init__()
        given, output, errors = files
        self._process = subprocess.Popen(
            launch.argv,
            executable=path,
            cwd=launch.cwd,
            env=dict(launch.env),
            stdin=given,
            stdout=output,
            stderr=errors,
            umask=launch.umask,
        )
        self._end = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._end, self._over)

    def _over(self) -> None:
        if not self.ended.done():
            self._loop.remove_reader(self._end)
            os.close(self._end)
            self.has_ended(self._process.wait())

    def stop(self) -> None:
        if not self.ended.done():
            with suppress(ProcessLookupError):
                self._process.kill()
            self._over()
