"""Artifacts, the files that work keeps and gets: what they are called, and the pieces in which they travel.

A name is also the path of a file below one folder, on whichever side, so it must not lead out of it.
"""

import base64
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationInfo

from common.json_rules import check_line

LONGEST_ARTIFACT_NAME = 255
# The type of what work keeps; others are those of a run's steps.
FILE_TYPE = "file"
# How much of a file travels in one piece, and how many pieces in one message: with what is around them it has less than
# the 1 MiB that the ledger keeps of a dead letter.
MAX_PIECE_BYTES = 128 * 1024
MOST_PIECES = 4


def check_artifact_name(name: str) -> str:
    """Return the name, or raise ValueError if it is not a relative path that stays below its folder."""
    check_line(name)
    if not 1 <= len(name.encode()) <= LONGEST_ARTIFACT_NAME:
        raise ValueError(f"must have 1 to {LONGEST_ARTIFACT_NAME} bytes")
    if "\\" in name:
        raise ValueError("must not contain a backslash: parts of a path are separated by /")
    if not {"", ".", ".."}.isdisjoint(name.split("/")):
        raise ValueError("must be a relative path without empty parts, . and ..")
    return name


def check_piece(data: str, *, offset: int, size: int) -> None:
    """Raise ValueError if a piece, in base64, is not inside a file of that size, or holds nothing of it."""
    length = len(base64.b64decode(data))
    if offset + length > size:
        raise ValueError(f"must end within the file: it holds {length} bytes from {offset} on, and the file has {size}")
    if length == 0 and size > 0:
        raise ValueError("must not be empty, for the file is not")


def _check_data(data: str) -> str:
    try:
        size = len(base64.b64decode(data, validate=True))
    except ValueError:
        raise ValueError("must be base64") from None
    if size > MAX_PIECE_BYTES:
        raise ValueError(f"must hold at most {MAX_PIECE_BYTES} bytes, not {size}")
    return data


def _check_inside(data: str, info: ValidationInfo) -> str:
    if {"offset", "size"} <= info.data.keys():
        check_piece(data, offset=info.data["offset"], size=info.data["size"])
    return data


ArtifactName = Annotated[str, AfterValidator(check_artifact_name)]
ArtifactType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
# The digest of a whole file, in hexadecimal digits.
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# Base64 of a piece.
PieceData = Annotated[str, Field(max_length=(MAX_PIECE_BYTES + 2) // 3 * 4), AfterValidator(_check_data)]
# The same in a model with the fields `size` and `offset` before it: the size of the whole file, and what comes before.
PieceOfFile = Annotated[PieceData, AfterValidator(_check_inside)]
