"""Search many byte strings at once, and see where the data may end in the beginning of one of them."""

from collections.abc import Iterable

from ahocorasick_rs import BytesAhoCorasick, Implementation

# The beginnings of longer words are compared one by one, and not kept all.
_LONG = 256


class Words:
    """A set of byte strings, none empty."""

    def __init__(self, words: Iterable[bytes]) -> None:
        self.all = tuple(sorted(words))
        self._automaton = BytesAhoCorasick(self.all, implementation=Implementation.DFA)
        short = [word for word in self.all if len(word) <= _LONG]
        self._long = [word for word in self.all if len(word) > _LONG]
        self._beginnings = frozenset(word[:size] for word in short for size in range(1, len(word)))
        self._longest_beginning = max(map(len, self._beginnings), default=0)

    def found_in(self, data: bytes) -> Iterable[tuple[int, int, int]]:
        """Return every place where a word stands, overlapping ones too: its number in `all`, start and end."""
        return self._automaton.find_matches_as_indexes(data, overlapping=True)

    def begun_at(self, data: bytes) -> int:
        """Return the first place from which the data may be the beginning of a word; its length if there is none."""
        at = len(data)
        for size in range(min(self._longest_beginning, len(data)), 0, -1):
            if data[-size:] in self._beginnings:
                at = len(data) - size
                break
        return min([at, *(_begun_at(data, word) for word in self._long)])


def _begun_at(data: bytes, word: bytes) -> int:
    at = data.find(word[:4], max(0, len(data) - len(word) + 1))
    while at >= 0:
        if word.startswith(data[at:]):
            return at
        at = data.find(word[:4], at + 1)
    return next((at for at in range(max(0, len(data) - 3), len(data)) if word.startswith(data[at:])), len(data))
