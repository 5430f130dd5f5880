"""Texts as they are: what a terminal or a browser would hide, or use to reorder what it shows, is written out.

Whoever approves work must see exactly what will run.
"""

import json
import unicodedata
from typing import Any

# Controls, formats (bidirectional marks, zero widths), lone surrogates, private and unassigned characters, separators.
_HIDING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
# Letters and marks that show nothing: fillers, joiners, selectors of variants, the empty pattern of Braille.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_EMPTY = frozenset(_FILLERS) | {
    chr(one) for one in (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}


def is_hidden(character: str) -> bool:
    """Say whether a character cannot be seen where it stands; a space can."""
    return character != " " and (unicodedata.category(character) in _HIDING or character in _EMPTY)


def visible(text: str) -> str:
    """Return a text with what cannot be seen written as \\u….

    A backslash is doubled, so that what is written out cannot be mistaken for a text that says so.
    """
    return "".join(_escaped(one) if is_hidden(one) else one for one in text.replace("\\", "\\\\"))


def visible_json(value: Any) -> str:
    """Return the JSON of a value over several lines, in which nothing is hidden; read again, it is the same value."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    # JSON itself writes controls within texts out; the line breaks that are left are those between the parts.
    return "".join(_escaped(one) if one != "\n" and is_hidden(one) else one for one in text)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
