"""Refuse unknown or repeated parameters and ambiguous bodies.

Every parameter must be one that the route knows, be there once unless the route takes several, and be a text that the
ledger can hold. Every body must be JSON, in one encoding, with no name twice in an object. This holds for all routes,
WebSockets included.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from email.message import Message as Header
from typing import Annotated, Any, get_args, get_origin

from fastapi import Depends
from fastapi.dependencies.models import Dependant
from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from starlette.datastructures import Headers, QueryParams
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from common.errors import Invalid, InvalidField
from common.json_rules import check_text
from common.json_text import NotJson, read_json
from orchestrator.http.errors import ERROR_CONTENT, UnsupportedContent

# The value of a parameter that is a whole number; Python would also read "1_0" and " 3 ".
_DIGITS = re.compile(r"-?[0-9]+")


def _digits(value: Any) -> Any:
    if isinstance(value, str) and not _DIGITS.fullmatch(value):
        raise PydanticCustomError("digits", "must be a whole number, in digits")
    return value


Digits = Annotated[int, BeforeValidator(_digits)]

# Parameters that the door reads (`identities/door.py`), and no route.
OF_THE_DOOR = {"http": frozenset[str](), "websocket": frozenset({"ticket"})}
# More of a name that no route knows tells nobody more.
LONGEST_SHOWN = 100
# The values of one body: as many as parameters of the largest size can have, twice. Each costs far more than its bytes.
MOST_VALUES = 512 * 1024
# Also one without an end, so that no part of a body is looked at twice.
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)
WITH_A_BODY = frozenset({"post", "put", "patch"})
JSON = "application/json"


@dataclass(frozen=True, slots=True)
class Body:
    """The body of a request: the value of its JSON, or why it cannot be taken."""

    value: Any = None
    fault: Invalid | None = None

    @property
    def says_something(self) -> bool:
        return bool(self.value != {})


def body_of(scope: Scope) -> Body | None:
    """Return the body of a request; None when it has none."""
    body: Body | None = scope.get("state", {}).get("body")
    return body


class ReadBodies:
    """Reads the JSON of every request before a route does. A request whose body is at fault is refused by its route."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        content, last = await _content(receive)
        if content:
            body = _body(Headers(scope=scope), content)
            scope.setdefault("state", {})["body"] = body
            if body.fault is not None:
                last = {"type": "http.request", "body": b"null", "more_body": False}
        await self._app(scope, _again(last, receive), send)


async def _content(receive: Receive) -> tuple[bytes, Message]:
    """Return the body and one ASGI message that carries it; after a disconnect, empty bytes and the disconnect."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"", message
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            content = b"".join(parts)
            return content, {"type": "http.request", "body": content, "more_body": False}


def _again(first: Message, receive: Receive) -> Receive:
    """Return what gives a message first, and then what comes."""
    untold = [first]

    async def receive_again() -> Message:
        return untold.pop() if untold else await receive()

    return receive_again


def _body(headers: Headers, content: bytes) -> Body:
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        return Body(
            fault=UnsupportedContent(f"The Content-Encoding {encoding!r} is not taken: send the body as it is.")
        )
    kinds = headers.getlist("content-type")
    if len(kinds) != 1 or not _is_json(kinds[0]):
        sent = " and ".join(map(repr, kinds)) or "missing"
        return Body(fault=UnsupportedContent(f"The Content-Type is {sent}: send {JSON}, in UTF-8."))
    if _has_too_many_values(content):
        return Body(fault=InvalidField("body", f"must have at most {MOST_VALUES} values: send it in parts"))
    try:
        return Body(read_json(content))
    except NotJson as error:
        return Body(fault=InvalidField(".".join(map(str, ("body", *error.path))), error.problem))


def _has_too_many_values(content: bytes) -> bool:
    """Return whether a JSON text has more values than are taken, without making them."""
    # What stands in texts counts as well here, so that nearly every body is decided without a search for texts.
    return _values(content) > MOST_VALUES and _values(_TEXT.sub(b"", content)) > MOST_VALUES


def _values(content: bytes) -> int:
    """Return how many values begin in a JSON text without texts, or some more."""
    return sum(map(content.count, (b",", b"[", b"{")))


def _is_json(kind: str) -> bool:
    header = Header()
    header["content-type"] = kind
    charset = header.get_content_charset("utf-8")
    return kind.strip() != "" and header.get_content_type() == JSON and charset in ("utf-8", "utf8", "us-ascii")


async def nothing_is_dropped(connection: HTTPConnection) -> None:
    """Raise `InvalidField` for a parameter that the route does not know or has twice, and what a body has at fault."""
    scope = connection.scope
    body = body_of(scope)
    if body is not None:
        if body.fault is not None:
            raise body.fault
        if body.says_something and scope["route"].body_field is None:
            raise InvalidField("body", "is not taken here: this takes no body")
    if scope["query_string"]:
        _check_query(scope)


def _check_query(scope: Scope) -> None:
    known = _parameters(scope["route"].dependant)
    seen: set[str] = set()
    for name, value in QueryParams(scope["query_string"]).multi_items():
        if name not in known and name not in OF_THE_DOOR[scope["type"]]:
            raise InvalidField(f"query.{name[:LONGEST_SHOWN]}", f"is not known here; {_allowed(known)}")
        if name in seen and not _takes_several(known.get(name)):
            raise InvalidField(f"query.{name}", "must be there once")
        try:
            check_text(value)
        except ValueError as problem:
            raise InvalidField(f"query.{name}", str(problem)) from None
        seen.add(name)


def _parameters(dependant: Dependant) -> dict[str, Any]:
    """Return the types of the query parameters that a route and its dependencies read, by name."""
    own = {field.alias: field.field_info.annotation for field in dependant.query_params}
    return own | {name: kind for one in dependant.dependencies for name, kind in _parameters(one).items()}


def _allowed(known: Collection[str]) -> str:
    return f"allowed: {', '.join(sorted(known))}" if known else "there are no parameters"


def _takes_several(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_takes_several(one) for one in get_args(annotation))


NOTHING_IS_DROPPED = Depends(nothing_is_dropped)


def refusals_documented(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document what every operation answers to what it does not take."""
    for operations in document["paths"].values():
        for method, operation in operations.items():
            answers = operation["responses"]
            answers.setdefault("422", {"content": ERROR_CONTENT, "description": "A field is not usable (1002)."})
            if method in WITH_A_BODY:
                answers["413"] = {"content": ERROR_CONTENT, "description": "The body is too large (1002)."}
                answers["415"] = {"content": ERROR_CONTENT, "description": "The body is not JSON in UTF-8 (1002)."}
    return document
