"""How much of an attempt's output is kept: so many bytes of each stream, whatever an agent sends."""

from collections.abc import Sequence

from common.messages import OutputChunk, Stream, WorkResult


def within(chunks: Sequence[OutputChunk], limit: int) -> list[OutputChunk]:
    """Return the pieces that begin within the limit; the last of them may reach beyond it by its own length."""
    return [chunk for chunk in chunks if chunk.offset < limit]


def capped(result: WorkResult, limit: int) -> WorkResult:
    """Return a result that announces no more output than is kept; the rest counts as dropped."""
    beyond = {stream: size - limit for stream, size in result.output_bytes.items() if size > limit}
    if not beyond and all(chunk.offset < limit for chunk in result.chunks):
        return result
    dropped = {stream: result.output_dropped.get(stream, 0) + beyond.get(stream, 0) for stream in Stream}
    return result.model_copy(
        update={
            "chunks": within(result.chunks, limit),
            "output_bytes": {stream: min(size, limit) for stream, size in result.output_bytes.items()},
            "output_dropped": {stream: size for stream, size in dropped.items() if size},
        }
    )
