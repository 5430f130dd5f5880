"""A time that a caller gives, with its zone."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BeforeValidator

_BEGINS = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}", re.ASCII)


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("is beyond the years 1 to 9999 in UTC") from None


def _written(moment: object) -> object:
    """Refuse what is no date and time, such as a number of seconds."""
    if isinstance(moment, datetime) or (isinstance(moment, str) and _BEGINS.match(moment)):
        return moment
    raise ValueError("must be a date and time with its zone, as in 2026-11-22T10:00:00Z")


Moment = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_in_utc)]
