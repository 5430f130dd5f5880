"""Turn the bytes that a task writes into numbered chunks of text.

Text is UTF-8; what is not valid becomes U+FFFD, and so does NUL, which the database cannot store. All sizes and offsets
count the UTF-8 bytes of that text. No I/O: `log_stream` decides when chunks are sent.
"""

import codecs
import math
from collections import deque
from itertools import takewhile

from common.messages import MAX_CHUNK_BYTES, MAX_TAIL_BYTES, OutputChunk, Stream

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_Decoder = codecs.getincrementaldecoder("utf-8")
_NOTHING = dict.fromkeys(Stream, 0)


class Chunker:
    """Collects output and cuts it into chunks, in the order in which it came.

    Of each stream at most `limit` bytes are kept, in whole characters; what comes after that is only counted, and its
    end kept as part of the tail.
    """

    def __init__(self, *, limit: int | None = None) -> None:
        self._limit = math.inf if limit is None else limit
        self._decoders: dict[Stream, codecs.IncrementalDecoder] = {}
        self._pieces: deque[tuple[Stream, bytes]] = deque()
        self._pending = 0
        self._next_number = 0
        self._offsets = _NOTHING.copy()
        self._totals = _NOTHING.copy()
        self._dropped = _NOTHING.copy()
        self._tail = bytearray()

    @property
    def pending(self) -> int:
        """How many bytes wait to be taken."""
        return self._pending

    @property
    def totals(self) -> dict[Stream, int]:
        """How many bytes each stream has held so far, without those that were dropped."""
        return dict(self._totals)

    @property
    def dropped(self) -> dict[Stream, int]:
        """How many bytes of each stream came after its limit; only streams that lost some."""
        return {stream: size for stream, size in self._dropped.items() if size}

    @property
    def tail(self) -> str:
        """The end of the output, both streams as they came, at most `MAX_TAIL_BYTES`."""
        end = self._tail[-MAX_TAIL_BYTES:]
        torn = sum(1 for _ in takewhile(_continues_a_character, end))
        return end[torn:].decode()

    def feed(self, stream: Stream, data: bytes) -> None:
        """Take in what a stream wrote; it may end in the middle of a character."""
        decoder = self._decoders.get(stream)
        if decoder is None:
            decoder = self._decoders[stream] = _Decoder(errors="replace")
        self._append(stream, decoder.decode(data))

    def finish(self) -> None:
        """No more will come: an unfinished character becomes U+FFFD."""
        for stream, decoder in self._decoders.items():
            self._append(stream, decoder.decode(b"", final=True))

    def take(self, limit: int) -> list[OutputChunk]:
        """Return the oldest output as chunks of together at most `limit` bytes (at least 4, a character)."""
        chunks: list[OutputChunk] = []
        while self._pieces and limit > 0:
            stream = self._pieces[0][0]
            data = self._cut(stream, min(limit, MAX_CHUNK_BYTES))
            if not data:
                break  # what is left of the limit is smaller than the next character
            limit -= len(data)
            chunks.append(
                OutputChunk(number=self._next_number, stream=stream, offset=self._offsets[stream], text=data.decode())
            )
            self._next_number += 1
            self._offsets[stream] += len(data)
            self._pending -= len(data)
        return chunks

    def _append(self, stream: Stream, text: str) -> None:
        if not text:
            return
        data = text.replace("\x00", REPLACEMENT).encode()
        self._tail += data
        if len(self._tail) > 16 * MAX_TAIL_BYTES:  # trimmed now and then, not at every write
            del self._tail[:-MAX_TAIL_BYTES]
        kept = data[: self._room(stream, data)]
        self._dropped[stream] += len(data) - len(kept)
        if kept:
            self._pieces.append((stream, kept))
            self._pending += len(kept)
            self._totals[stream] += len(kept)

    def _room(self, stream: Stream, data: bytes) -> int:
        """Return how many bytes of the data may still be kept: nothing more once something was dropped."""
        if self._dropped[stream]:
            return 0
        room = self._limit - self._totals[stream]
        if len(data) <= room:
            return len(data)
        end = int(room)
        while end > 0 and _continues_a_character(data[end]):
            end -= 1
        return end

    def _cut(self, stream: Stream, room: int) -> bytes:
        """Take at most `room` bytes of the pieces at the front that belong to the stream, in whole characters."""
        taken = bytearray()
        while self._pieces and self._pieces[0][0] is stream and len(taken) < room:
            _, piece = self._pieces.popleft()
            end = room - len(taken)
            if len(piece) <= end:
                taken += piece
                continue
            while end > 0 and _continues_a_character(piece[end]):
                end -= 1
            taken += piece[:end]
            self._pieces.appendleft((stream, piece[end:]))
            break
        return bytes(taken)


def _continues_a_character(byte: int) -> bool:
    return byte & 0b1100_0000 == 0b1000_0000
