"""Carry what one pipe delivers to whoever takes the output."""

import asyncio
import fcntl
import os
import select
import sys
import termios
from contextlib import ExitStack
from typing import Self

from agents.executors.base import WriteOutput
from common.messages import Stream

READ_BYTES = 64 * 1024


class Pump:
    """Reads one pipe until every process has closed it. Reading waits for `write`, and the pipe for the reading."""

    def __init__(self, stream: Stream, write: WriteOutput, reading_end: int, writing_end: int) -> None:
        self._stream = stream
        self._write = write
        self._reading_end: int | None = reading_end
        self._writing_end: int | None = writing_end
        self._loop = asyncio.get_running_loop()
        self._reading_since: float | None = None
        self._heard_at = self._loop.time()
        self._rest: int | None = None
        self._waiting: asyncio.Future[None] | None = None
        self.task = asyncio.create_task(self._run(), name=f"pump {stream}")

    @classmethod
    def open(cls, stream: Stream, write: WriteOutput, files: ExitStack) -> Self:
        """Make a pipe and start to read it; leaving `files` closes both ends.

        The ends belong to this object alone. Handing one to a transport would give it two owners, and the second close
        of a descriptor hits whatever file has got its number meanwhile.
        """
        reading_end, writing_end = os.pipe()
        os.set_blocking(reading_end, False)
        pump = cls(stream, write, reading_end, writing_end)
        files.callback(pump._close_reading_end)
        files.callback(pump.task.cancel)
        files.callback(pump.close_writing_end)
        return pump

    @property
    def writing_end(self) -> int:
        assert self._writing_end is not None
        return self._writing_end

    def close_writing_end(self) -> None:
        """Leave the writing end to the program alone, so that its closing is seen."""
        if self._writing_end is not None:
            os.close(self._writing_end)
            self._writing_end = None

    def finish(self) -> None:
        """Read only what the pipe holds now: it may still be held, but what comes later is nobody's."""
        if self._reading_end is None or self._rest is not None:
            return
        held = fcntl.ioctl(self._reading_end, termios.FIONREAD, bytes(4))
        self._rest = int.from_bytes(held, sys.byteorder)
        if self._waiting is not None:
            _finish(self._waiting)

    @property
    def is_held(self) -> bool:
        """Whether a process has the pipe open, so that more may come. What is in the pipe already does not count."""
        if self.task.done() or self._reading_end is None:
            return False
        ends = select.poll()
        ends.register(self._reading_end, 0)
        return not any(event & select.POLLHUP for _, event in ends.poll(0))

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for the taker of the output rather than for the program."""
        return self._reading_since is None

    @property
    def heard_at(self) -> float:
        """When the program last wrote; now, while what it wrote waits for the taker of the output."""
        if self.is_blocked and not self.task.done():
            return self._loop.time()
        return self._heard_at

    async def _run(self) -> None:
        try:
            while data := await self._read():
                await self._write(self._stream, data)
        except Exception:
            # Nobody takes the output any more; the program must not hang on a full pipe for that.
            while await self._read():
                pass
            raise

    async def _read(self) -> bytes:
        self._reading_since = self._loop.time()
        data = await self._next()
        self._heard_at = self._loop.time()
        self._reading_since = None
        return data

    async def _next(self) -> bytes:
        # Others get their turn also when a program writes faster than it is read.
        await asyncio.sleep(0)
        while self._reading_end is not None and self._rest != 0:
            most = READ_BYTES if self._rest is None else min(READ_BYTES, self._rest)
            try:
                data = os.read(self._reading_end, most)
            except BlockingIOError:
                if self._rest is not None:
                    break
                await self._readable(self._reading_end)
                continue
            if self._rest is not None:
                self._rest -= len(data)
            return data
        return b""

    async def _readable(self, descriptor: int) -> None:
        ready = self._waiting = self._loop.create_future()
        self._loop.add_reader(descriptor, _finish, ready)
        try:
            await ready
        finally:
            self._waiting = None
            if self._reading_end is not None:
                self._loop.remove_reader(descriptor)

    def _close_reading_end(self) -> None:
        if self._reading_end is not None:
            self._loop.remove_reader(self._reading_end)
            os.close(self._reading_end)
            self._reading_end = None


def _finish(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
