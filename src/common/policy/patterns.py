"""Patterns and globs of a policy: compiled when the policy is read, matched in linear time and bounded memory.

RE2 matches them: no pattern makes it backtrack, and it refuses what it could only match by backtracking.
"""

import posixpath
import re
from collections.abc import Sequence
from typing import Any, Self

import re2
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

LONGEST_PATTERN = 500
LONGEST_SUBJECT = 4096
MOST_PATTERNS = 200
# How many of them a message names.
MOST_NAMED = 5
# For one pattern: its program, and the states that are kept of it.
MEMORY_BYTES = 256 * 1024

# A pattern without any special character matches itself alone, and needs no engine.
_ORDINARY = re.compile(r"[A-Za-z0-9_/ -]+")
_WILDCARDS = re.compile(r"(\*|\?)")


def _options() -> re2.Options:
    options = re2.Options()
    options.max_mem = MEMORY_BYTES
    options.log_errors = False  # to standard error; the exception says it
    options.never_capture = True
    return options


def _compiled(expression: str) -> Any:
    try:
        return re2.compile(expression, _options())
    except re2.error as error:
        problem = error.args[0]
        said = problem.decode(errors="replace") if isinstance(problem, bytes) else problem
        raise ValueError(
            f"is not a pattern that RE2 takes: {said}; classes, groups, alternatives and repetition are allowed, "
            "back references, look-around and repetition beyond 1000 are not"
        ) from None


class Patterns:
    """Patterns of which one must match a whole text. In the file: one text, or a list."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = tuple(texts)
        self._literals = frozenset(filter(self._is_literal, self.texts))
        self._others = [_compiled(self._expression(text)) for text in self.texts if text not in self._literals]

    def match(self, text: str) -> bool:
        """Return whether one of them matches the whole text, and not only how it begins or ends."""
        if text in self._literals:
            return True
        if not self._others or len(text) > LONGEST_SUBJECT:
            return False
        try:
            return any(one.fullmatch(text) is not None for one in self._others)
        except UnicodeEncodeError:  # a lone surrogate
            return False

    def __str__(self) -> str:
        more = len(self.texts) - MOST_NAMED
        return " or ".join(map(repr, self.texts[:MOST_NAMED])) + (f" or {more} more" if more > 0 else "")

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(min_length=1, max_length=LONGEST_PATTERN)
        texts = core_schema.tuple_schema(
            [core_schema.no_info_after_validator_function(cls._checked, text)],
            variadic_item_index=0,
            max_length=MOST_PATTERNS,
        )
        return core_schema.no_info_after_validator_function(
            cls._made_of,
            core_schema.no_info_before_validator_function(one_or_many, texts),
            serialization=core_schema.plain_serializer_function_ser_schema(lambda patterns: list(patterns.texts)),
        )

    @classmethod
    def _made_of(cls, texts: tuple[str, ...]) -> Self:
        if not texts:
            raise ValueError("must have at least one")
        return cls(texts)

    @staticmethod
    def _checked(text: str) -> str:
        _compiled(text)
        return text

    @staticmethod
    def _is_literal(text: str) -> bool:
        return _ORDINARY.fullmatch(text) is not None

    @staticmethod
    def _expression(text: str) -> str:
        return text


class Globs(Patterns):
    """Globs for absolute paths, of which one must match: `*` and `?` stay within one name, `**` is one name or more."""

    def match(self, text: str) -> bool:
        """Return whether one of them matches a path, which is compared as text, without `.` and doubled slashes."""
        return len(text) <= LONGEST_SUBJECT and super().match(normal_path(text))

    @staticmethod
    def _checked(text: str) -> str:
        if not text.startswith("/") or normal_path(text) != text:
            raise ValueError("must be an absolute path without '.', '..' and empty names")
        if any("**" in name and name != "**" for name in text.split("/")):
            raise ValueError("must have '**' as a whole name only, as in /srv/**/logs; within a name '*' is allowed")
        return text

    @staticmethod
    def _is_literal(text: str) -> bool:
        return _WILDCARDS.search(text) is None

    @staticmethod
    def _expression(text: str) -> str:
        return "(?s)" + "/".join(map(_name, text.split("/")))


def one_or_many(given: Any) -> Any:
    return (given,) if isinstance(given, str) else given


def _name(glob: str) -> str:
    # A normal path has no empty name, so what stands between two slashes is at least one whole name.
    if glob == "**":
        return ".+"
    parts = {"*": "[^/]*", "?": "[^/]"}
    return "".join(parts.get(part) or re2.escape(part) for part in _WILDCARDS.split(glob))


def normal_path(path: str) -> str:
    """Return a path without `.`, `..` and empty names; links are not looked at."""
    normal = posixpath.normpath(path)
    return f"/{normal.lstrip('/')}" if normal.startswith("/") else normal
