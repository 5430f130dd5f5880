"""Hide secrets in one text."""

from common.redaction.stream import Redactor
from common.redaction.values import Values


def redacted(text: str, values: Values) -> str:
    """Return the text with a mark in place of every known value and of whatever looks like a token."""
    redactor = Redactor(values)
    data = text.encode("utf-8", "surrogatepass")
    hidden = redactor.feed(data) + redactor.flush()
    return text if hidden == data else hidden.decode("utf-8", "replace")
