"""What a dropped file asks for: a dispatch, and under which names its result is to be found. Pure."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePath
from typing import Any
from uuid import UUID, uuid5

from common.json_text import NotJson, read_json

DEFAULT_CHANNEL = "file"
LONGEST_NAME = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NAMESPACE = UUID("6f0e7c52-5f0a-4d0e-9a3c-0d8a2f6b7e11")


class Malformed(ValueError):
    """A file that asks for nothing that could be dispatched; the text names the field and what is allowed."""


@dataclass(frozen=True, slots=True)
class Order:
    """A dispatch (`body`, as of `POST /api/v1/dispatch`), and the names that its result is filed under."""

    body: Mapping[str, Any]
    task_id: UUID
    channel: str
    message: str
    ordering_key: str | None


def read_order(name: str, content: bytes) -> Order:
    """Return what a file asks for. Raises `Malformed`.

    Ids that it does not give are made from its name and content, so that the same file is the same task for ever.
    """
    body = _object(content)
    channel = _name(body.pop("channel", DEFAULT_CHANNEL), field="channel")
    message = _name(body.pop("message_id", _from_file(name)), field="message_id")
    if not isinstance(body.get("work_type"), str):
        raise Malformed("work_type: missing or no text; it names the kind of work, such as shell_script")
    key = body.get("ordering_key")
    if key is not None and not isinstance(key, str):
        raise Malformed("ordering_key: must be a text or null")
    origin = f"{name}\0{hashlib.sha256(content).hexdigest()}"
    body.setdefault("request_id", str(uuid5(_NAMESPACE, f"request\0{origin}")))
    task_id = body.setdefault("task_id", str(uuid5(_NAMESPACE, f"task\0{origin}")))
    try:
        return Order(body, UUID(task_id), channel, message, key)
    except (ValueError, AttributeError, TypeError):
        raise Malformed("task_id: must be a UUID") from None


def outgoing_name(order: Order, *, at: datetime) -> str:
    """Return the name of the file for the result of an order that ended at a time."""
    return f"{order.channel}-{order.message}-{at.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}.json"


def _object(content: bytes) -> dict[str, Any]:
    try:
        body = read_json(content)
        # What cannot be sent (half of a surrogate pair, too deep) shows itself here and not in a dispatch.
        json.dumps(body, ensure_ascii=False).encode()
    except NotJson as failure:
        raise Malformed(f"The file {failure}.") from None
    except UnicodeError:
        raise Malformed("The file is not UTF-8 throughout.") from None
    except RecursionError:
        raise Malformed("The file is nested too deep.") from None
    if not isinstance(body, dict):
        raise Malformed("The file holds no JSON object; it must be the body of a dispatch.")
    return body


def _name(value: object, *, field: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise Malformed(
            f"{field}: must be a text of 1 to {LONGEST_NAME} letters, digits, dots, hyphens and underscores "
            "that starts with a letter or digit"
        )
    return value


def _from_file(name: str) -> str:
    """Return the name of a file as it may stand in that of another."""
    clean = re.sub(r"[^A-Za-z0-9._-]", "_", PurePath(name).stem)[: LONGEST_NAME - 1]
    return clean if _NAME.fullmatch(clean) else f"m{clean}"
