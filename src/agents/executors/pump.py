"""Carry what one pipe delivers to whoever takes the output."""

import asyncio
import os
from contextlib import ExitStack
from typing import Self

from agents.executors.base import WriteOutput
from common.messages import Stream

READ_BYTES = 64 * 1024


class Pump:
    """Reads one pipe until every process has closed it. Reading waits for `write`, and the pipe for the reading."""

    def __init__(self, stream: Stream, write: WriteOutput, reader: asyncio.StreamReader, writing_end: int) -> None:
        self._stream = stream
        self._write = write
        self._reader = reader
        self._writing_end: int | None = writing_end
        self._reading_since: float | None = None
        self._heard_at = asyncio.get_running_loop().time()
        self.task = asyncio.create_task(self._run(), name=f"pump {stream}")

    @classmethod
    async def open(cls, stream: Stream, write: WriteOutput, files: ExitStack) -> Self:
        """Make a pipe and start to read it; leaving `files` closes both ends."""
        loop = asyncio.get_running_loop()
        reading_end, writing_end = os.pipe()
        reader = asyncio.StreamReader(limit=READ_BYTES, loop=loop)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader, loop=loop), os.fdopen(reading_end, "rb", buffering=0)
        )
        pump = cls(stream, write, reader, writing_end)
        files.callback(transport.close)
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

    @property
    def is_blocked(self) -> bool:
        """Whether it waits for the taker of the output rather than for the program."""
        return self._reading_since is None

    def is_silent(self, seconds: float) -> bool:
        """Whether the pipe is open but has been empty for so long."""
        since = self._reading_since
        return since is not None and asyncio.get_running_loop().time() - since >= seconds

    @property
    def heard_at(self) -> float:
        """When the program last wrote; now, while what it wrote waits for the taker of the output."""
        if self.is_blocked and not self.task.done():
            return asyncio.get_running_loop().time()
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
        self._reading_since = asyncio.get_running_loop().time()
        data = await self._reader.read(READ_BYTES)
        self._heard_at = asyncio.get_running_loop().time()
        self._reading_since = None
        return data
