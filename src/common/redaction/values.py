"""The secret values that are known, in every form in which they are searched."""

from collections import OrderedDict
from collections.abc import Iterable

from common.redaction.forms import forms, is_long_enough
from common.redaction.known import KnownForms
from common.redaction.shapes import ANCHORS

# Values that a command makes anew for every attempt would grow without end.
MOST_VALUES = 256
_NO_FORMS = KnownForms((), ())


class Values:
    """Known values. `parent`: those of the whole agent, beside which an attempt has its own.

    Of the values that come and go the last `MOST_VALUES` are kept. For one thread to write and any to read.
    """

    def __init__(self, values: Iterable[str] = (), *, parent: "Values | None" = None) -> None:
        self._parent = parent
        self._values: OrderedDict[str, None] = OrderedDict()
        # Making what searches for words costs more than all else that a short attempt does.
        self._own = self._searched() if parent is None else _NO_FORMS
        self.hide(*values)

    @property
    def forms(self) -> tuple[KnownForms, ...]:
        """All that is searched; the first also searches the anchors of tokens."""
        if self._parent is None:
            return (self._own,)
        return (*self._parent.forms, self._own) if self._values else self._parent.forms

    def hide(self, *values: str) -> None:
        """Search these from now on; those that are too short to be searched are left out."""
        new = [value for value in values if is_long_enough(value) and value not in self._values]
        if not new:
            return
        self._values.update(dict.fromkeys(new))
        while len(self._values) > MOST_VALUES:
            self._values.popitem(last=False)
        self._own = self._searched()

    def _searched(self) -> KnownForms:
        found = [forms(value) for value in self._values]
        return KnownForms(
            (form for one in found for form in one.exact),
            (form for one in found for form in one.wrapping),
            ANCHORS if self._parent is None else (),
        )


# For texts of which only what looks like a token is hidden.
NOTHING = Values()
