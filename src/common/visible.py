"""Untrusted text, made safe for a terminal, a text log and the eyes of approvers.

Whatever agents, callers and programs write passes one of these functions before a person sees it. What is written out
appears as `\\u` and four digits, the notation of JSON, so that JSON text stays the same value.

- `shown`: one line for operators. Readable names in any left-to-right script stay; what a terminal obeys, hides or
  reorders, and words that look like others, are written out.
- `shown_output`: the output of a program on a terminal, over several lines.
- `visible` and `visible_json`: what approvers see; everything beyond ASCII is written out.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby
from typing import Any

# Controls, formats (bidirectional marks, zero widths), lone surrogates, private and unassigned characters, separators.
_HIDING = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"})
# Letters and marks that show nothing: fillers, joiners, selectors of variants, the empty pattern of Braille.
_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0"
_EMPTY = frozenset(_FILLERS) | {
    chr(one) for one in (*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0))
}
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
# Marks that strike a letter through, so that it looks like another one.
_STROKES = frozenset(map(chr, (*range(0x0334, 0x0339), *range(0x20D2, 0x20D4), *range(0x20D8, 0x20DB), 0x20E5, 0x20EB)))
# As many marks as Vietnamese and Thai need on one letter.
_MOST_MARKS = 2
# Scripts that are written together with Latin letters and do not look like them.
_BESIDE_LATIN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"})
# Cyrillic and Greek letters that look like Latin ones: a word of these alone looks like a Latin word.
_LIKE_LATIN = frozenset("аеорсухіјѕһԁԛԝАВЕЅІЈКМНОРСТУХ" + "ονΑΒΕΖΗΙΚΜΝΟΡΤΥΧ")  # noqa: RUF001 - that is the point

_NOT_PLAIN = re.compile(r"[^ -~]")
_NOT_PLAIN_OUTPUT = re.compile(r"[^ -~\n\t]")
# Words, and what beyond ASCII may stand between them.
_RUN = re.compile(r"[0-9A-Za-z\u0080-\U0010ffff]+")
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")


def is_hidden(character: str) -> bool:
    """Say whether a character cannot be seen where it stands; a space can."""
    return character != " " and (unicodedata.category(character) in _HIDING or character in _EMPTY)


def shown(text: str) -> str:
    """Return a text on one line in which nothing is obeyed, hidden or reordered, and no word looks like another."""
    if _NOT_PLAIN.search(text) is None:
        return text
    return _RUN.sub(_run, text).translate(_ONE_LINE)


def quoted(value: object) -> str:
    """Return a value to stand behind `name=`: in quotes when it could be taken for more than one value."""
    text = str(value)
    if text and not any(one in text for one in ' "='):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def shown_output(text: str) -> str:
    """Return what a program wrote as a terminal may have it: line breaks and tabs stay, colours are left out."""
    if _NOT_PLAIN_OUTPUT.search(text) is None:
        return text
    return _COLOURS.sub("", text).replace("\r\n", "\n").translate(_OUTPUT)


def visible(text: str) -> str:
    """Return a text in which all that is not printable ASCII is written out.

    A backslash is doubled, so that what is written out cannot be mistaken for a text that says so.
    """
    return _NOT_PLAIN.sub(lambda found: _escaped(found[0]), text.replace("\\", "\\\\"))


def visible_json(value: Any) -> str:
    """Return the JSON of a value over several lines, all of it printable ASCII; read again, it is the same value."""
    return json.dumps(value, indent=2, allow_nan=False)


def _run(found: re.Match[str]) -> str:
    """Return the words of a run, with what makes one of them look like another written out."""
    if found[0].isascii():
        return found[0]
    parts = ((is_word, "".join(characters)) for is_word, characters in groupby(found[0], _belongs_to_a_word))
    return "".join(_word(part) if is_word and not part.isascii() else part for is_word, part in parts)


def _belongs_to_a_word(character: str) -> bool:
    return character.isalnum() or _is_mark(character)


def _is_mark(character: str) -> bool:
    return unicodedata.category(character) in ("Mn", "Me", "Mc")


def _word(word: str) -> str:
    letters = [one for one in word if one.isalpha()]
    scripts = {_script(one) for one in letters} - _BESIDE_LATIN
    looks_latin = len(letters) > 1 and _LIKE_LATIN.issuperset(letters)
    if len(scripts) > 1 or looks_latin:
        return "".join(one if one.isascii() else _escaped(one) for one in word)
    return "".join(_with_few_marks(word))


def _with_few_marks(word: str) -> Iterator[str]:
    room = 0
    for one in word:
        if not _is_mark(one):
            room = _MOST_MARKS
        elif room == 0:
            yield _escaped(one)
            continue
        else:
            room -= 1
        yield one


@lru_cache(maxsize=4096)
def _script(letter: str) -> str:
    """Return the script of a letter as its name says it: LATIN, CYRILLIC, …"""
    if ord(letter) < 0x100:
        return "LATIN"
    return unicodedata.name(letter, "").partition(" ")[0]


def _misleads(character: str) -> bool:
    """Say whether a character deceives wherever it stands: it is hidden, reorders its line, or stands for ASCII."""
    if is_hidden(character) or character in _STROKES or unicodedata.category(character) == "Me":
        return True
    if unicodedata.bidirectional(character) in _RIGHT_TO_LEFT:
        return True
    # Fullwidth, mathematical and circled letters and digits; Latin-1 has ordinal signs and superscripts of its own.
    meant = unicodedata.normalize("NFKC", character) if ord(character) > 0xFF else ""
    return meant.isascii() and meant.isalnum()


def _misleads_in_output(character: str) -> bool:
    """Say whether a terminal would obey a character, hide it, or reorder a line by it; letters of all scripts stay."""
    return character not in "\n\t" and is_hidden(character) and unicodedata.category(character) != "Zs"


class _Written:
    """A table for `str.translate` that writes out the characters of one kind; the last that were looked up are kept."""

    def __init__(self, is_meant: Callable[[str], bool]) -> None:
        @lru_cache(maxsize=4096)
        def find(code: int) -> str:
            return _escaped(chr(code)) if is_meant(chr(code)) else chr(code)

        self._find = find

    def __getitem__(self, code: int) -> str:
        return self._find(code)


_ONE_LINE = _Written(_misleads)
_OUTPUT = _Written(_misleads_in_output)


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
