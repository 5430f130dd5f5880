"""Hide secrets in the lines that the agent itself logs."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from common.redaction.text import redacted
from common.redaction.values import Values


class RedactingFormatter(logging.Formatter):
    """Formats as `inner` does, and hides secrets in the finished line, tracebacks included."""

    def __init__(self, inner: logging.Formatter, values: Values) -> None:
        super().__init__()
        self.inner = inner
        self._values = values

    def format(self, record: logging.LogRecord) -> str:
        return redacted(self.inner.format(record), self._values)


@contextmanager
def hidden_in_logs(values: Values) -> Iterator[None]:
    """Hide the values in whatever this process logs inside; where others are hidden already, these too.

    Several agents of one process leave in any order, and what the others hide stays hidden.
    """
    layers = [
        (handler, RedactingFormatter(handler.formatter or logging.Formatter(), values))
        for handler in logging.getLogger().handlers
    ]
    for handler, layer in layers:
        handler.setFormatter(layer)
    try:
        yield
    finally:
        for handler, layer in layers:
            handler.setFormatter(_without(layer, handler.formatter))


def _without(layer: RedactingFormatter, formatter: logging.Formatter | None) -> logging.Formatter | None:
    """Return a formatter without a layer that it is or has inside."""
    if formatter is layer:
        return layer.inner
    outer = formatter
    while isinstance(outer, RedactingFormatter):
        if outer.inner is layer:
            outer.inner = layer.inner
            break
        outer = outer.inner
    return formatter
