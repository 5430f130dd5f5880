"""Logs: one JSON object a line, with the ids of what the line is about.

Inside `log_context(task_id=…)` every line carries those ids, also the lines of libraries.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

from common.visible import quoted, shown

CONTEXT_FIELDS = ("trace_id", "request_id", "task_id", "agent_id")

_context: ContextVar[dict[str, object] | None] = ContextVar("log_context", default=None)


@contextmanager
def log_context(**ids: object) -> Iterator[None]:
    """Add ids to every line logged inside, in this task and those started from it."""
    known = {name: value for name, value in ids.items() if value is not None}
    token = _context.set({**(_context.get() or {}), **known})
    try:
        yield
    finally:
        _context.reset(token)


class ContextFilter(logging.Filter):
    """Copies the ids of the current context onto a line, unless it names its own, and turns ids into text."""

    def filter(self, record: logging.LogRecord) -> bool:
        context = _context.get() or {}
        for name in CONTEXT_FIELDS:
            value = getattr(record, name, None) or context.get(name)
            if value is not None:
                setattr(record, name, str(value))
        return True


class TextFormatter(logging.Formatter):
    """A line for people: time, level, event and the fields beside it.

    All of a record stays on its line; only a traceback follows, indented, so that no line of it looks like a record.
    """

    _plain = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info:
            record.exc_text = None  # another handler may have kept the traceback as it is
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name of the base class
        fields = " ".join(f"{name}={quoted(value)}" for name, value in vars(record).items() if name not in self._plain)
        return shown(f"{super().formatMessage(record)} {fields}".rstrip(" "))

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name of the base class
        return _indented(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802 - the name of the base class
        return _indented(stack_info)


def _indented(text: str) -> str:
    return "\n".join(f"    {shown(line)}" for line in text.split("\n"))


def configure_logs(*, service: str, level: str, style: Literal["json", "text"]) -> None:
    """Send all logs of this process to standard error, as JSON or as text."""
    handler = logging.StreamHandler(sys.stderr)
    if style == "json":
        handler.setFormatter(
            JsonFormatter(
                ["levelname", "name", "message"],
                rename_fields={"levelname": "level", "name": "logger", "message": "event"},
                timestamp=True,
                static_fields={"service": service},
            )
        )
    else:
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)-7s %(message)s"))
    handler.addFilter(ContextFilter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("aiormq.connection").addFilter(_expected)
    for chatty in ("aio_pika", "aiormq", "httpx2", "httpcore2", "websockets"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))


def _expected(record: logging.LogRecord) -> bool:
    """Leave out a frame that RabbitMQ sent before it read that its channel closes: AMQP 0-9-1 has it discarded."""
    return not str(record.msg).startswith("Got frame for closed channel")
