"""The secret values that are known, in every form in which they are searched."""

from collections import OrderedDict
from collections.abc import Iterable

from common.redaction.forms import forms, is_long_enough
from common.redaction.known import KnownForms
from common.redaction.shapes import ANCHORS

# Values that a command makes anew for every attempt would grow without end.
MOST_PASSING = 256
_NO_FORMS = KnownForms((), ())


class Values:
    """Known values. `parent`: those of the whole agent, beside which an attempt has its own.

    Those given at first stay, and those hidden `for_good`; of all others the `MOST_PASSING` that were used last are
    kept. For one thread to write and any to read.
    """

    def __init__(self, values: Iterable[str] = (), *, parent: "Values | None" = None) -> None:
        self._parent = parent
        self._staying: dict[str, None] = {}
        self._passing: OrderedDict[str, None] = OrderedDict()
        # Making what searches for words costs more than all else that a short attempt does.
        self._own = self._searched() if parent is None else _NO_FORMS
        self.hide(*values, for_good=True)

    @property
    def forms(self) -> tuple[KnownForms, ...]:
        """All that is searched; the first also searches the anchors of tokens."""
        if self._parent is None:
            return (self._own,)
        return (*self._parent.forms, self._own) if self._own.exact else self._parent.forms

    def hide(self, *values: str, for_good: bool = False) -> None:
        """Search these from now on; those that are too short to be searched are left out."""
        usable = [value for value in values if is_long_enough(value) and value not in self._staying]
        new = [value for value in usable if value not in self._passing]
        for value in usable:
            if for_good:
                self._passing.pop(value, None)
                self._staying[value] = None
            else:
                self._passing[value] = None
                self._passing.move_to_end(value)
        while len(self._passing) > MOST_PASSING:
            self._passing.popitem(last=False)
        if new:
            self._own = self._searched()

    def _searched(self) -> KnownForms:
        found = [forms(value) for value in (*self._staying, *self._passing)]
        return KnownForms(
            (form for one in found for form in one.exact),
            (form for one in found for form in one.wrapping),
            ANCHORS if self._parent is None else (),
        )


# For texts of which only what looks like a token is hidden.
NOTHING = Values()
