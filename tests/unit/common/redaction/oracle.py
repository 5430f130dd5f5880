"""What must be hidden, found slowly and all at once: every form at every place, every token wherever it may begin."""

from collections.abc import Iterable

from common.redaction.shapes import MOST_PEM_BYTES, PEM_END, SHAPES, Shape
from common.redaction.stream import MARK


def hidden(data: bytes, exact: Iterable[bytes] = (), wrapping: Iterable[bytes] = ()) -> bytes:
    """Return the data with each stretch of hidden bytes as one mark."""
    covered = bytearray(len(data))
    for form in exact:
        for at in range(len(data)):
            if data.startswith(form, at):
                covered[at : at + len(form)] = b"\1" * len(form)
    for form in wrapping:
        for at in range(len(data)):
            size = _wrapped_size(form, data, at)
            covered[at : at + size] = b"\1" * size
    for shape in SHAPES:
        _cover_shape(data.lower() if shape.any_case else data, shape, covered)
    out = bytearray()
    for at, byte in enumerate(data):
        if not covered[at]:
            out.append(byte)
        elif at == 0 or not covered[at - 1]:
            out += MARK
    return bytes(out)


def _wrapped_size(form: bytes, data: bytes, at: int) -> int:
    """Return how many bytes the form takes from there on with the line breaks in it; 0 when it does not stand there."""
    size = 0
    for byte in form:
        while size and data[at + size : at + size + 1] in (b"\r", b"\n"):
            size += 1
        if data[at + size : at + size + 1] != bytes([byte]):
            return 0
        size += 1
    return size if size <= 2 * len(form) else 0


def _cover_shape(data: bytes, shape: Shape, covered: bytearray) -> None:
    for at in range(len(data)):
        match = shape.head.match(data, at)
        if match is None:
            continue
        start, end = shape.hidden(match)
        if shape.is_pem:
            most = min(len(data), match.end() + MOST_PEM_BYTES)
            stop = data.find(PEM_END, match.end(), match.end() + MOST_PEM_BYTES)
            end = most if stop < 0 else stop
        elif shape.run is not None:
            found = shape.run.match(data, match.end())
            end = match.end() if found is None else found.end()
        covered[start:end] = b"\1" * (end - start)
