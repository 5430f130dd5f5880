"""Pages of lists that are bounded in bytes as well as in rows, so that no answer grows with what callers stored."""

from dataclasses import dataclass
from typing import Generic, TypeVar

# A page ends with the row that reaches this; a single row may exceed it.
MOST_PAGE_BYTES = 8 * 1024 * 1024

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """Some rows in their order. `has_more`: others follow; the limit on rows or that on bytes ended the page."""

    rows: list[Row]
    has_more: bool
