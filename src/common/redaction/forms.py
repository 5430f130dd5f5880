"""The ways in which a value may be written: as it is, and in base64, hexadecimal, URLs, JSON and shell commands."""

import json
from base64 import b64encode
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, quote_plus

# What is shorter is found everywhere: hiding it would make output unreadable and tell by its gaps what it is.
SHORTEST = 6
# A key file is often shown line by line, indented or cut; its longer lines are searched by themselves.
SHORTEST_LINE = 16
BREAKS = "\r\n"

# The first characters of base64 that also hold bits of what comes before, by how many bytes of a group come before.
_MIXED_WITH_BEFORE = (0, 2, 3)


class SecretTooShort(ValueError):
    def __init__(self) -> None:
        super().__init__(f"a secret must have at least {SHORTEST} characters, because shorter ones cannot be hidden")


class Forms(NamedTuple):
    """`exact` forms stand as they are; programs that write `wrapping` ones break lines anywhere in them."""

    exact: frozenset[bytes]
    wrapping: frozenset[bytes]


def is_long_enough(value: str) -> bool:
    """Whether a value can be hidden; line breaks around it do not belong to it."""
    return len(value.strip(BREAKS)) >= SHORTEST


@lru_cache(maxsize=1024)
def forms(value: str) -> Forms:
    """Return every way to write the value that is searched. Raises `SecretTooShort`."""
    if not is_long_enough(value):
        raise SecretTooShort
    texts = {value.strip(BREAKS), *(line.strip() for line in value.splitlines() if _tells(line.strip()))}
    return Forms(
        frozenset(form for text in texts for form in _exact(text)),
        frozenset(form for text in texts for form in (*_base64(text.encode()), *_hexadecimal(text.encode()))),
    )


def _tells(line: str) -> bool:
    """Whether a line of a longer value is secret by itself, and no frame such as -----BEGIN PRIVATE KEY-----."""
    return len(line) >= SHORTEST_LINE and not line.startswith("-----")


def _exact(text: str) -> Iterator[bytes]:
    yield text.encode()
    for written in (quote(text, safe=""), quote(text), quote_plus(text)):
        yield written.encode()
        yield _lower_escapes(written).encode()
    for ascii_only in (True, False):
        in_json = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        yield in_json.encode()
        yield in_json.replace("/", "\\/").encode()
    yield text.replace("'", "'\\''").encode()
    yield text.replace("'", "'\"'\"'").encode()


def _hexadecimal(data: bytes) -> Iterator[bytes]:
    yield data.hex().encode()
    yield data.hex().upper().encode()


def _base64(data: bytes) -> Iterator[bytes]:
    """The characters that are the same whatever stands around the value, at each of its three positions."""
    for before, mixed in enumerate(_MIXED_WITH_BEFORE):
        whole = (before + len(data)) * 8 // 6
        common = b64encode(bytes(before) + data)[mixed:whole]
        yield common
        yield common.translate(bytes.maketrans(b"+/", b"-_"))


def _lower_escapes(written: str) -> str:
    first, *rest = written.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])
