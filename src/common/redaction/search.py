"""Find what must be hidden in a piece of bytes, and say what of it is not decided yet.

Whatever comes next can only add to what was found. So pieces of any size give the same as the whole at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from common.redaction.known import KnownForms, Span, Unwrapped
from common.redaction.shapes import ANCHORS, MOST_PEM_BYTES, PEM_END, SHAPES, Shape
from common.redaction.words import Words

# The longest that may stand between an anchor and what is hidden behind it, where one match begins inside another.
_LOOK_BACK = 64


@dataclass(frozen=True, slots=True)
class Open:
    """A token that goes on: its shape, where to look on, and how many bytes it may still have (PEM only)."""

    shape: Shape
    at: int
    left: int


@dataclass(slots=True)
class Found:
    """`spans` are to be hidden; from `undecided` on, more input may change what is found; `open` goes on behind it."""

    undecided: int
    spans: list[Span] = field(default_factory=list)
    open: dict[tuple[Shape, int], Open] = field(default_factory=dict)

    def hide(self, start: int, end: int) -> None:
        if start < end:
            self.spans.append((start, end))

    def hold(self, at: int) -> None:
        self.undecided = min(self.undecided, at)

    def goes_on(self, token: Open) -> None:
        before = self.open.get((token.shape, token.at))
        if before is None or before.left < token.left:
            self.open[token.shape, token.at] = token


_ANCHORS = Words(ANCHORS)
_LONGEST_ANCHOR = max(map(len, ANCHORS))
_PEM_END = Words([PEM_END])
_SHAPES_OF: Mapping[bytes, Sequence[tuple[Shape, bytes]]] = {
    word: [(shape, anchor) for shape in SHAPES for anchor in shape.anchors if anchor.lower() == word]
    for word in ANCHORS
}


def search(data: bytes, known: Sequence[KnownForms], going_on: Iterable[Open] = ()) -> Found:
    """Find all known forms and all tokens in the data, overlapping ones too; `going_on` began before it.

    One of `known` searches the anchors of tokens.
    """
    found = Found(len(data))
    unwrapped = Unwrapped(data, is_enough=not any(forms.exact for forms in known))
    # What begins inside a token of the same shape is hidden with it.
    inside: dict[Shape, int] = {}
    for forms in known:
        spans, anchors = forms.found_in(unwrapped)
        found.spans += spans
        if forms.exact:
            found.hold(forms.begun_at(unwrapped))
        for word, (at, end) in anchors:
            for shape, anchor in _SHAPES_OF[word]:
                if at >= inside.get(shape, 0) and (shape.any_case or data[at:end] == anchor):
                    inside[shape] = _take(_read_as(shape, unwrapped), shape, at, found) - _LOOK_BACK
    last = data[-_LONGEST_ANCHOR:].lower()
    found.hold(len(data) - len(last) + _ANCHORS.begun_at(last))
    for token in going_on:
        _run(_read_as(token.shape, unwrapped), token, found)
    return found


def _read_as(shape: Shape, unwrapped: Unwrapped) -> bytes:
    return unwrapped.small_data if shape.any_case else unwrapped.data


def _take(data: bytes, shape: Shape, at: int, found: Found) -> int:
    """Add the token that begins here, if there is one; return where it ends."""
    match = shape.head.match(data, at)
    if match is None:
        if shape.partial.match(data, at):
            found.hold(at)
        return at
    start, end = shape.hidden(match)
    found.hide(start, end)
    if shape.run is None and not shape.is_pem:
        return end
    return _run(data, Open(shape, match.end(), MOST_PEM_BYTES), found)


def _run(data: bytes, token: Open, found: Found) -> int:
    """Hide what belongs to a token from where it goes on; return where it ends."""
    if token.shape.is_pem:
        _run_pem(data, token, found)
        return token.at  # another key may begin before the end of this one
    assert token.shape.run is not None
    match = token.shape.run.match(data, token.at)
    end = token.at if match is None else match.end()
    found.hide(token.at, end)
    if end == len(data):
        found.goes_on(Open(token.shape, end, token.left))
    return end


def _run_pem(data: bytes, token: Open, found: Found) -> None:
    most = token.at + token.left
    end = data.find(PEM_END, token.at, most)
    if end < 0:
        end = min(len(data), most)
        if most > len(data):
            end = _PEM_END.begun_at(data[token.at :]) + token.at
            found.hold(end)
            found.goes_on(Open(token.shape, end, most - end))
    found.hide(token.at, end)


def merged(spans: Sequence[Span]) -> list[Span]:
    """Return the spans in order, those that overlap or touch as one."""
    whole: list[Span] = []
    for start, end in sorted(spans):
        if whole and start <= whole[-1][1]:
            whole[-1] = (whole[-1][0], max(whole[-1][1], end))
        else:
            whole.append((start, end))
    return whole
