"""The secret values that are known, in every form in which they are searched."""

from collections import OrderedDict
from collections.abc import Iterable

from common.redaction.forms import SHORTEST, forms
from common.redaction.words import Words

# Values that a command makes anew for every attempt would grow without end.
MOST_VALUES = 256


class Values:
    """Known values. `parent`: those of the whole agent, beside which an attempt has its own.

    Of the values that come and go the last `MOST_VALUES` are kept. For one thread to write and any to read.
    """

    def __init__(self, values: Iterable[str] = (), *, parent: "Values | None" = None) -> None:
        self._parent = parent
        self._values: OrderedDict[str, None] = OrderedDict()
        self._own: Words | None = None
        self.hide(*values)

    @property
    def words(self) -> tuple[Words, ...]:
        """All that is searched."""
        inherited = () if self._parent is None else self._parent.words
        return inherited if self._own is None else (*inherited, self._own)

    def hide(self, *values: str) -> None:
        """Search these from now on; those that are too short to be searched are left out."""
        new = [value for value in values if len(value) >= SHORTEST and value not in self._values]
        if not new:
            return
        self._values.update(dict.fromkeys(new))
        while len(self._values) > MOST_VALUES:
            self._values.popitem(last=False)
        self._own = Words({form for value in self._values for form in forms(value)})


# For texts of which only what looks like a token is hidden.
NOTHING = Values()
