"""Output becomes numbered chunks without a byte lost, doubled or torn."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from agents.output.chunks import Chunker
from common.messages import MAX_CHUNK_BYTES, MAX_TAIL_BYTES, OutputChunk, Stream

WRITES = st.lists(
    st.tuples(st.sampled_from(list(Stream)), st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode))),
    max_size=30,
)


def text_of(chunks: Sequence[OutputChunk], stream: Stream) -> str:
    return "".join(chunk.text for chunk in chunks if chunk.stream is stream)


def written(writes: Sequence[tuple[Stream, bytes]], stream: Stream) -> str:
    data = b"".join(data for to, data in writes if to is stream)
    return data.decode(errors="replace").replace("\x00", "\ufffd")


@given(writes=WRITES, limits=st.lists(st.integers(min_value=4, max_value=50), min_size=1, max_size=5))
def test_however_bytes_are_split_the_text_is_the_same_and_the_offsets_are_contiguous(
    writes: list[tuple[Stream, bytes]], limits: list[int]
) -> None:
    chunker = Chunker()
    chunks: list[OutputChunk] = []
    for turn, (stream, data) in enumerate(writes):
        chunker.feed(stream, data)
        if turn % 3 == 0:
            chunks += chunker.take(limits[turn % len(limits)])
    chunker.finish()
    while chunker.pending:
        chunks += chunker.take(limits[0])

    assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
    for stream in Stream:
        assert text_of(chunks, stream) == written(writes, stream)
        offset = 0
        for chunk in chunks:
            if chunk.stream is stream:
                assert chunk.offset == offset
                offset += len(chunk.text.encode())
        assert chunker.totals[stream] == offset


@given(writes=WRITES, limit=st.integers(min_value=0, max_value=30))
def test_beyond_the_limit_of_a_stream_nothing_is_kept_and_everything_is_counted(
    writes: list[tuple[Stream, bytes]], limit: int
) -> None:
    chunker = Chunker(limit=limit)
    for stream, data in writes:
        chunker.feed(stream, data)
    chunker.finish()
    chunks: list[OutputChunk] = []
    while chunker.pending:
        chunks += chunker.take(1000)

    for stream in Stream:
        kept, whole = text_of(chunks, stream), written(writes, stream)
        assert whole.startswith(kept)
        assert len(kept.encode()) == chunker.totals[stream] <= limit
        assert chunker.dropped.get(stream, 0) == len(whole.encode()) - len(kept.encode())
        if len(whole.encode()) <= limit:
            assert kept == whole


def test_the_limit_is_kept_to_the_byte_and_the_tail_is_still_the_end() -> None:
    exact, above = Chunker(limit=5), Chunker(limit=5)
    exact.feed(Stream.STDOUT, b"12345")
    above.feed(Stream.STDOUT, b"123456")

    assert (exact.totals[Stream.STDOUT], exact.dropped) == (5, {})
    assert (above.totals[Stream.STDOUT], above.dropped) == (5, {Stream.STDOUT: 1})
    assert above.tail == "123456"


@given(writes=WRITES, limit=st.integers(min_value=4, max_value=30))
def test_what_is_taken_at_once_is_never_more_than_the_limit(writes: list[tuple[Stream, bytes]], limit: int) -> None:
    chunker = Chunker()
    for stream, data in writes:
        chunker.feed(stream, data)

    while chunker.pending:
        taken = sum(len(chunk.text.encode()) for chunk in chunker.take(limit))
        assert 0 < taken <= limit


def test_a_chunk_holds_at_most_its_maximum_of_bytes_also_when_characters_are_wide() -> None:
    chunker = Chunker()
    chunker.feed(Stream.STDOUT, ("x" + "😀" * 200_000).encode())

    chunks = chunker.take(10_000_000)

    assert max(len(chunk.text.encode()) for chunk in chunks) <= MAX_CHUNK_BYTES
    assert text_of(chunks, Stream.STDOUT) == "x" + "😀" * 200_000


def test_the_order_of_the_streams_is_kept() -> None:
    chunker = Chunker()
    for stream, data in [(Stream.STDOUT, b"1"), (Stream.STDOUT, b"2"), (Stream.STDERR, b"3"), (Stream.STDOUT, b"4")]:
        chunker.feed(stream, data)

    chunks = chunker.take(1000)

    assert [(chunk.stream, chunk.text) for chunk in chunks] == [
        (Stream.STDOUT, "12"),
        (Stream.STDERR, "3"),
        (Stream.STDOUT, "4"),
    ]


def test_a_character_that_never_ends_becomes_a_replacement_at_the_end() -> None:
    chunker = Chunker()
    chunker.feed(Stream.STDOUT, "é".encode()[:1])
    assert chunker.pending == 0

    chunker.finish()

    assert text_of(chunker.take(100), Stream.STDOUT) == "\ufffd"


def test_nul_is_replaced_because_it_cannot_be_stored() -> None:
    chunker = Chunker()
    chunker.feed(Stream.STDOUT, b"a\x00b")

    assert text_of(chunker.take(100), Stream.STDOUT) == "a\ufffdb"


def test_the_tail_is_the_end_of_the_output_in_whole_characters() -> None:
    chunker = Chunker()
    for _ in range(100):
        chunker.feed(Stream.STDOUT, "€".encode() * 10_000)
    chunker.feed(Stream.STDERR, b"the end")

    assert len(chunker.tail.encode()) <= MAX_TAIL_BYTES
    assert len(chunker.tail.encode()) > MAX_TAIL_BYTES - 4
    assert chunker.tail.strip("€") == "the end"


def test_after_something_was_dropped_nothing_more_is_kept_so_that_no_hole_is_hidden() -> None:
    chunker = Chunker(limit=3)
    chunker.feed(Stream.STDOUT, "éé".encode())
    chunker.feed(Stream.STDOUT, b"a")

    assert text_of(chunker.take(100), Stream.STDOUT) == "é"
    assert chunker.dropped == {Stream.STDOUT: 3}
