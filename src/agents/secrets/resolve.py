"""Look up a secret on this host, right before the work that refers to it starts."""

import asyncio
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from agents.attempts.stopping import StopSignal
from agents.executors.base import ProcessStarted, SecretUnavailable
from agents.executors.process import Command, Ending, run_process
from agents.processes.cannot_start import CannotStart
from agents.processes.keepers import Keepers
from agents.secrets.model import SecretSource
from common.errors import StartupRefused
from common.messages import Stream
from common.redaction.forms import SHORTEST, is_long_enough
from common.redaction.values import Values

log = logging.getLogger(__name__)

# Its forms, which are searched for in all output, take some thousand times as much memory.
MOST_BYTES = 8 * 1024
COMMAND_SECONDS = 30.0


class SecretUnusable(StartupRefused):
    """A secret of the settings has a value that could not be hidden."""


class Secrets:
    """The secrets of the settings, by name. Every value that is looked up is known, and hidden, from then on."""

    def __init__(
        self, sources: Mapping[str, SecretSource], known: Values, keepers: Keepers, *, inherited: Mapping[str, str]
    ) -> None:
        self._keepers = keepers
        self._sources = sources
        self._known = known
        self._inherited = inherited

    async def read_now(self) -> None:
        """Know those that are here already, so that work that never refers to them cannot tell them either.

        Raises `SecretUnusable` for one that is too short to be hidden; one that is not there yet is only logged.
        """
        for name, source in self._sources.items():
            if source.command is None:
                try:
                    value = _checked(name, await asyncio.to_thread(_read, name, source))
                    self._known.hide(value, for_good=True)
                except SecretUnavailable as failure:
                    if failure.is_too_short:
                        raise SecretUnusable(f"[agent.secrets] {failure}") from None
                    log.warning("secret.missing", extra={"secret": name, "reason": str(failure)})

    async def value(self, name: str, *, work_type: str, stop: StopSignal, started: ProcessStarted) -> str:
        """Return the value of a secret. Raises `SecretUnavailable`, which never tells what the value is."""
        source = self._sources.get(name)
        if source is None:
            raise SecretUnavailable(name, "this agent has no secret of that name")
        if source.work_types is not None and work_type not in source.work_types:
            raise SecretUnavailable(name, f"work of the type {work_type!r} may not use it here")
        if source.command is not None:
            text = await self._output_of(name, source.command, stop, started)
        else:
            text = await asyncio.to_thread(_read, name, source)
        value = _checked(name, text)
        self._known.hide(value)
        return value

    async def _output_of(self, name: str, argv: list[str], stop: StopSignal, started: ProcessStarted) -> str:
        output = bytearray()

        async def collect(stream: Stream, data: bytes) -> None:
            if stream is Stream.STDOUT and len(output) <= MOST_BYTES:
                output.extend(data)

        command = Command(
            argv=argv,
            cwd=Path(tempfile.gettempdir()),
            env=self._inherited,
            stdin=b"",
            max_duration_seconds=COMMAND_SECONDS,
            kill_grace_seconds=1.0,
        )
        try:
            finished = await run_process(self._keepers, command, write=collect, stop=stop, started=started)
        except CannotStart as failure:
            raise SecretUnavailable(name, str(failure)) from None
        if finished.ending is not Ending.EXITED or finished.exit_code:
            reason = f"its command was not successful ({finished.ending}, exit code {finished.exit_code})"
            raise SecretUnavailable(name, reason, may_come=True)
        return _text(name, bytes(output))


def _read(name: str, source: SecretSource) -> str:
    if source.env is not None:
        value = os.environ.get(source.env)
        if value is None:
            raise SecretUnavailable(name, f"the agent's environment has no variable {source.env}")
        return value
    assert source.file is not None
    try:
        with Path(source.file).open("rb") as file:
            return _text(name, file.read(MOST_BYTES + 1))
    except OSError as failure:
        raise SecretUnavailable(name, f"its file cannot be read: {failure.strerror}", may_come=True) from None


def _text(name: str, data: bytes) -> str:
    if len(data) > MOST_BYTES:
        raise SecretUnavailable(name, f"it has more than {MOST_BYTES} bytes")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise SecretUnavailable(name, "it is no UTF-8 text") from None


def _checked(name: str, value: str) -> str:
    if "\x00" in value:
        raise SecretUnavailable(name, "it contains the NUL character")
    if not is_long_enough(value):
        reason = f"it has fewer than {SHORTEST} characters, so it could not be hidden in output"
        raise SecretUnavailable(name, reason, is_too_short=True)
    return value
