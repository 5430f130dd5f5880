"""What stands in a message file: one line of JSON about the message, then its body, byte for byte."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


class TornMessage(ValueError):
    """A file that is no message; the text says why."""


@dataclass(frozen=True, slots=True)
class FileMessage:
    message_id: str
    priority: int
    type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def pack(message: FileMessage) -> bytes:
    head = {
        "message_id": message.message_id,
        "priority": message.priority,
        "type": message.type,
        "bytes": len(message.body),
        "headers": dict(message.headers),
    }
    return json.dumps(head).encode() + b"\n" + message.body


def unpack(content: bytes) -> FileMessage:
    """Return the message in a file. Raises `TornMessage`."""
    line, _, body = content.partition(b"\n")
    try:
        head = json.loads(line)
        message = FileMessage(
            message_id=str(head["message_id"]),
            priority=int(head["priority"]),
            type=str(head["type"]),
            body=body,
            headers={str(name): str(value) for name, value in head["headers"].items()},
        )
        expected = int(head["bytes"])
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise TornMessage(f"Its first line is not that of a message: {type(failure).__name__}: {failure}") from None
    if len(body) != expected:
        raise TornMessage(f"It has {len(body)} bytes of body instead of {expected}.")
    return message
