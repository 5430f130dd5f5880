"""Hide secrets in the lines that the agent itself logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from common.redaction.text import redacted
from common.redaction.values import Values


class RedactingFormatter(logging.Formatter):
    """Formats as another formatter does, and hides secrets in the finished line, tracebacks included."""

    def __init__(self, formatter: logging.Formatter, values: Values) -> None:
        super().__init__()
        self._formatter = formatter
        self._values = values

    def format(self, record: logging.LogRecord) -> str:
        return redacted(self._formatter.format(record), self._values)


@contextmanager
def hidden_in_logs(values: Values) -> Iterator[None]:
    """Hide the values in whatever this process logs inside; where others are hidden already, these too."""
    before = [(handler, handler.formatter) for handler in logging.getLogger().handlers]
    for handler, formatter in before:
        handler.setFormatter(RedactingFormatter(formatter or logging.Formatter(), values))
    try:
        yield
    finally:
        for handler, formatter in before:
            handler.setFormatter(formatter)
