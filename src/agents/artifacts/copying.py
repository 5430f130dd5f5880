"""Copy a file as it may leave this host.

In a text, secrets are hidden as in output. A binary file, in which nothing can be replaced, is refused when it holds a
secret that is known; what only looks like a token stays there. What is compressed or encrypted is not looked into.
"""

import codecs
import hashlib
import os
from collections.abc import Iterator
from typing import NamedTuple

from agents.artifacts.matching import Unusable
from common.durable import write_all
from common.redaction.known import Unwrapped
from common.redaction.stream import Redactor
from common.redaction.values import Values

BLOCK_BYTES = 256 * 1024

_Decoder = codecs.getincrementaldecoder("utf-8")


class Copied(NamedTuple):
    """The SHA-256 and the size of a copy."""

    sha256: str
    size: int


class _NoText(Exception):
    """The file is no UTF-8, or holds NUL."""


def copy_without_secrets(source: int, target: int, values: Values, *, limit: int) -> Copied:
    """Copy an open file to an empty one; the source may change meanwhile. Blocking.

    Raises `Unusable` for what must not leave the host or has more than `limit` bytes, and `OSError`.
    """
    if (size := os.fstat(source).st_size) > limit:
        raise _too_large(limit, size)
    try:
        return _copy(_hidden(source, values, limit), target, limit)
    except _NoText:
        os.lseek(target, 0, os.SEEK_SET)
        os.ftruncate(target, 0)
        return _copy(_searched(source, values, limit), target, limit)


def _copy(blocks: Iterator[bytes], target: int, limit: int) -> Copied:
    digest, size = hashlib.sha256(), 0
    for block in blocks:
        size += len(block)
        if size > limit:  # what stands for a secret may be longer than the secret
            raise _too_large(limit, size)
        digest.update(block)
        write_all(target, block)
    return Copied(digest.hexdigest(), size)


def _blocks(source: int, limit: int) -> Iterator[bytes]:
    at = 0
    while block := os.pread(source, BLOCK_BYTES, at):
        at += len(block)
        if at > limit:  # it grows
            raise _too_large(limit, at)
        yield block


def _hidden(source: int, values: Values, limit: int) -> Iterator[bytes]:
    """Yield a text without the secrets in it. Raises `_NoText`."""
    decoder, redactor = _Decoder("strict"), Redactor(values)
    for block in _blocks(source, limit):
        if b"\x00" in block:
            raise _NoText
        _check_decoded(decoder, block)
        yield redactor.feed(block)
    _check_decoded(decoder, b"", is_last=True)
    yield redactor.flush()


def _check_decoded(decoder: codecs.IncrementalDecoder, block: bytes, *, is_last: bool = False) -> None:
    try:
        decoder.decode(block, is_last)
    except UnicodeDecodeError:
        raise _NoText from None


def _searched(source: int, values: Values, limit: int) -> Iterator[bytes]:
    """Yield what a file holds, as it is. Raises `Unusable` when that has a known secret in it."""
    known = [forms for forms in values.forms if forms.exact]
    held = b""
    for block in _blocks(source, limit):
        unwrapped = Unwrapped(held + block, is_enough=False)
        undecided = len(unwrapped.data)
        for forms in known:
            if forms.found_in(unwrapped)[0]:
                raise Unusable("it holds a secret of this host, and is no text in which that could be hidden")
            undecided = min(undecided, forms.begun_at(unwrapped))
        held = unwrapped.data[undecided:] if known else b""
        yield block


def _too_large(limit: int, size: int) -> Unusable:
    return Unusable(f"it has {size} bytes or more; the most that this agent keeps is {limit} (max_artifact_bytes)")
