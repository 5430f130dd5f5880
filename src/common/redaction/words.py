"""Search many byte strings at once, and see where the data may end in the beginning of one of them."""

from collections.abc import Iterable, Iterator, Sequence

from ahocorasick_rs import BytesAhoCorasick, Implementation

# Beginnings of at least so many bytes are searched, shorter ones compared.
_FIRST_BYTES = 4
# A table with an entry for each state and byte is quickest, and takes a kilobyte for each byte of the words.
_MOST_IN_A_TABLE = 64 * 1024


class Words:
    """A set of byte strings, none empty."""

    def __init__(self, words: Iterable[bytes]) -> None:
        self.all = tuple(sorted(words))
        self._automaton = _automaton(self.all)
        self._longest = max(map(len, self.all), default=0)
        self._begun_with: dict[bytes, list[bytes]] = {}
        for word in self.all:
            for size in range(1, min(_FIRST_BYTES, len(word) - 1) + 1):
                self._begun_with.setdefault(word[:size], []).append(word)
        self._firsts = tuple(first for first in self._begun_with if len(first) == _FIRST_BYTES)
        self._first_automaton = _automaton(self._firsts)

    def found_in(self, data: bytes) -> Iterable[tuple[int, int, int]]:
        """Return every place where a word stands, overlapping ones too: its number in `all`, start and end."""
        return self._automaton.find_matches_as_indexes(data, overlapping=True)

    def begun_at(self, data: bytes) -> int:
        """Return the first place from which the data may be the beginning of a word; its length if there is none."""
        for at, _ in self.begun_in(data):
            return at
        return len(data)

    def begun_in(self, data: bytes) -> Iterator[tuple[int, Sequence[bytes]]]:
        """Return every place from which the data may be the beginning of words, in order, with these words."""
        before = max(0, len(data) - self._longest + 1)
        tail = data[before:]
        for number, at, _ in self._first_automaton.find_matches_as_indexes(tail, overlapping=True):
            begun = tail[at:]
            words = [
                word
                for word in self._begun_with[self._firsts[number]]
                if len(word) > len(begun) and word.startswith(begun)
            ]
            if words:
                yield before + at, words
        for size in range(min(_FIRST_BYTES - 1, len(tail)), 0, -1):
            words = self._begun_with.get(tail[-size:], [])
            if words:
                yield len(data) - size, words


def _automaton(words: Sequence[bytes]) -> BytesAhoCorasick:
    is_small = sum(map(len, words)) <= _MOST_IN_A_TABLE
    return BytesAhoCorasick(words, implementation=Implementation.DFA if is_small else Implementation.ContiguousNFA)
