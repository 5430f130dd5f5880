"""Find the forms of known values, and the anchors of tokens, in one pass over the data.

It goes over the data without its line breaks and in small letters, because programs wrap base64 and hexadecimal, and
because anchors may be in any case. What is found there counts only if it stands in the data as it must.
"""

from collections.abc import Iterable
from functools import cached_property

from common.redaction.words import Words

Span = tuple[int, int]


class Unwrapped:
    """Data, and its text: the same without its line breaks, or as it is where that is enough.

    `small` is the text in small letters.
    """

    def __init__(self, data: bytes, *, is_enough: bool) -> None:
        self.data = data
        self.text = data if is_enough else _without_breaks(data)
        self.small = self.text.lower()
        # The last byte of the text that was placed, and where it stands.
        self._last = (-1, -1)

    @cached_property
    def small_data(self) -> bytes:
        return self.small if self.text is self.data else self.data.lower()

    def span(self, start: int, end: int) -> Span:
        """Return where a part of the text stands in the data."""
        return self.place(start), self.place(end - 1) + 1

    def place(self, at: int) -> int:
        """Return where a byte of the text stands in the data; quickest in the order of the text."""
        if self.text is self.data:
            return at
        before, place = self._last if self._last[0] <= at else (-1, -1)
        seen, place = place + 1, place + at - before
        while breaks := self._breaks(seen, place + 1):
            seen, place = place + 1, place + breaks
        self._last = at, place
        return place

    def _breaks(self, start: int, end: int) -> int:
        return self.data.count(b"\n", start, end) + self.data.count(b"\r", start, end)


class KnownForms:
    """Forms to search: `exact` ones as they are, `wrapping` ones with line breaks between any of their bytes; and
    `anchors`, in small letters.

    So many breaks within a form that they double its length make it another text. No form begins or ends with a break.
    """

    def __init__(self, exact: Iterable[bytes], wrapping: Iterable[bytes], anchors: Iterable[bytes] = ()) -> None:
        self.exact = frozenset(exact)
        self.wrapping = frozenset(wrapping)
        self._anchors = frozenset(anchors)
        self._exact: dict[bytes, list[bytes]] = {}
        for form in self.exact:
            self._exact.setdefault(_without_breaks(form).lower(), []).append(form)
        self._wrapping: dict[bytes, list[bytes]] = {}
        for form in self.wrapping:
            self._wrapping.setdefault(form.lower(), []).append(form)
        self._forms = Words({*self._exact, *self._wrapping})
        self._words = Words({*self._forms.all, *self._anchors})

    def found_in(self, unwrapped: Unwrapped) -> tuple[list[Span], list[tuple[bytes, Span]]]:
        """Return where forms stand in the data, overlapping ones too, and which anchors stand where."""
        spans: list[Span] = []
        anchors: list[tuple[bytes, Span]] = []
        for number, start, end in self._words.found_in(unwrapped.small):
            word = self._words.all[number]
            at, after = unwrapped.span(start, end)
            if word in self._anchors and after - at == len(word):
                anchors.append((word, (at, after)))
            if after - at <= 2 * len(word) and unwrapped.text[start:end] in self._wrapping.get(word, ()):
                spans.append((at, after))
            if any(unwrapped.data.startswith(form, at) for form in self._exact.get(word, ())):
                spans.append((at, after))
        return spans, anchors

    def begun_at(self, unwrapped: Unwrapped) -> int:
        """Return the first place from which the data may be the beginning of a form; its length if there is none."""
        size = len(unwrapped.data)
        for start, words in self._forms.begun_in(unwrapped.small):
            at = unwrapped.place(start)
            for word in words:
                if size - at <= 2 * len(word) and _begins(self._wrapping.get(word, ()), unwrapped.text[start:]):
                    return at
                if _begins(self._exact.get(word, ()), unwrapped.data[at:]):
                    return at
        return size


def _begins(forms: Iterable[bytes], data: bytes) -> bool:
    return any(form.startswith(data) for form in forms)


def _without_breaks(data: bytes) -> bytes:
    """Return the data without its line breaks; the same object when there are none."""
    return data.replace(b"\n", b"").replace(b"\r", b"")
