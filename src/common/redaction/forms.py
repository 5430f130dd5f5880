"""The ways in which a value may be written: as it is, and in base64, hexadecimal, URLs, JSON and shell commands."""

import json
import re
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

# What Python, `encodeURIComponent`, `encodeURI` and Java leave as it is, besides letters, digits and `-_.~`.
_LEFT_IN_URLS = ("", "/", "!'()*", ";,/?:@&=+$#!'()*", "*")
# What Go, and templates for HTML, escape in JSON, so that it may stand within a page.
_ESCAPED_IN_JSON = ("<>&\u2028\u2029", "<>&'\u2028\u2029", "<>&'+\u2028\u2029")
_UNICODE_ESCAPE = re.compile(r"\\u[0-9a-f]{4}")
_IN_DOUBLE_QUOTES = re.compile(r"[$`\"\\]")
_BARE = re.compile(r"[ \t!\"$&'()*,;<>?\[\\\]^`{|}]")
_NAMED_IN_DOLLAR_QUOTES = {
    "\a": "\\a",
    "\b": "\\b",
    "\t": "\\t",
    "\n": "\\n",
    "\v": "\\v",
    "\f": "\\f",
    "\r": "\\r",
    "\x1b": "\\E",
    "'": "\\'",
    "\\": "\\\\",
}

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
    for written in _in_urls(text):
        yield written.encode()
        yield _lower_escapes(written).encode()
    for written in _in_json(text):
        yield written.encode()
    for written in _in_shells(text):
        yield written.encode()


def _in_urls(text: str) -> Iterator[str]:
    """Programs differ in what they leave as it is, and in how they write a space."""
    for safe in _LEFT_IN_URLS:
        for written in (quote(text, safe=safe), quote_plus(text, safe=safe)):
            yield written
            yield written.replace("~", "%7E")


def _in_json(text: str) -> Iterator[str]:
    """Programs differ in which characters they escape beyond those that JSON demands, and in the letters of digits."""
    for ascii_only in (True, False):
        plain = json.dumps(text, ensure_ascii=ascii_only)[1:-1]
        for also in ("", *_ESCAPED_IN_JSON):
            written = plain.translate({ord(one): f"\\u{ord(one):04x}" for one in also})
            for cased in (written, _UNICODE_ESCAPE.sub(lambda found: found[0].upper().replace("U", "u", 1), written)):
                yield cased
                yield cased.replace("/", "\\/")


def _in_shells(text: str) -> Iterator[str]:
    """In single quotes; in double quotes, as `export -p` writes it; without, as `printf %q` does; in `$'…'`."""
    yield text.replace("'", "'\\''")
    yield text.replace("'", "'\"'\"'")
    yield _IN_DOUBLE_QUOTES.sub(r"\\\g<0>", text)
    bare = _BARE.sub(r"\\\g<0>", text)
    yield bare
    yield f"\\{bare}" if bare.startswith(("#", "~")) else bare
    for as_bytes in (True, False):
        yield "".join(_in_dollar_quotes(one, as_bytes=as_bytes) for one in text)


def _in_dollar_quotes(character: str, *, as_bytes: bool) -> str:
    if character in _NAMED_IN_DOLLAR_QUOTES:
        return _NAMED_IN_DOLLAR_QUOTES[character]
    if character.isascii() and character.isprintable():
        return character
    if not character.isascii() and not as_bytes:
        return character
    return "".join(f"\\{byte:03o}" for byte in character.encode())


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
