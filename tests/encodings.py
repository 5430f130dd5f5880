"""How programs write a text: every way written out here, without the code under test."""

import json
import re
from base64 import b64encode
from collections.abc import Iterator, Mapping
from types import MappingProxyType

LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")
# What programs leave as it is in URLs, besides these letters.
UNESCAPED: Mapping[str, str] = MappingProxyType(
    {
        "PHP": "",
        "curl": "~",
        "a path": "/~",
        "encodeURIComponent": "!'()*~",
        "encodeURI": ";,/?:@&=+$#!'()*~",
        "Java": "*",
    }
)
SPACES: Mapping[str, str] = MappingProxyType({"spaces as %20": "%20", "spaces as +": "+"})
ESCAPES: Mapping[str, str] = MappingProxyType({"capital escapes": "%{:02X}", "small escapes": "%{:02x}"})
ALPHABETS: Mapping[str, bytes] = MappingProxyType({"base64": b"+/", "URL-safe base64": b"-_"})


def ways(text: str) -> dict[str, str]:
    """Return the whole text in every way but base64, by the names of the ways."""
    plain, ascii_only = (json.dumps(text, ensure_ascii=is_ascii)[1:-1] for is_ascii in (False, True))
    return {
        "as it is": text,
        "hexadecimal": text.encode().hex(),
        "hexadecimal in capitals": text.encode().hex().upper(),
        "JSON": plain,
        "JSON with escaped slashes": plain.replace("/", "\\/"),
        "JSON in ASCII": ascii_only,
        "JSON in ASCII with escaped slashes": ascii_only.replace("/", "\\/"),
        "single quotes, a quote after a backslash": text.replace("'", "'\\''"),
        "single quotes, a quote in double quotes": text.replace("'", "'\"'\"'"),
        "double quotes": re.sub(r'([$`"\\])', r"\\\1", text),
        **{
            f"URL, {program}, {spaces}, {escapes}": _in_url(text, unescaped, space, escape)
            for program, unescaped in UNESCAPED.items()
            for spaces, space in SPACES.items()
            for escapes, escape in ESCAPES.items()
        },
    }


def base64_of(value: bytes, alphabet: bytes) -> Iterator[bytes]:
    """Yield the characters all of whose bits are the value's, at each of the three places where it may begin."""
    for before in range(3):
        text = b64encode(bytes(before) + value, altchars=alphabet)
        yield text[-(-before * 8 // 6) : (before + len(value)) * 8 // 6]


def _in_url(text: str, unescaped: str, space: str, escape: str) -> str:
    written = ""
    for character in text:
        if character == " ":
            written += space
        elif character in LETTERS or character in unescaped:
            written += character
        else:
            written += "".join(map(escape.format, character.encode()))
    return written
