"""What tokens look like, of whatever origin.

A shape begins with one of its `anchors`. `head` matches from there to the first character that is hidden and as far as
it takes to be sure; then everything is hidden until the shape's `run` ends. `partial` matches whatever may still become
a head when more comes. Heads are bounded, so that little is ever held back; runs are not. Hiding too much costs a word
of a log; hiding too little costs the secret.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

PEM_END = b"-----end"
# What follows the first line of a private key without the last one is hidden up to here.
MOST_PEM_BYTES = 8192


@dataclass(frozen=True, eq=False)
class Shape:
    """`anchors` are in small letters when `any_case`; then the head is matched against small letters, too.

    The hidden part begins at the head's group `hidden`, or else at its start. `run` None: it is the group or the head.
    """

    anchors: tuple[bytes, ...]
    head: re.Pattern[bytes]
    partial: re.Pattern[bytes]
    run: re.Pattern[bytes] | None = None
    any_case: bool = False
    is_pem: bool = False

    def hidden(self, found: re.Match[bytes]) -> tuple[int, int]:
        """Return where what a head hides begins and ends, without its run."""
        if "hidden" not in self.head.groupindex:
            return found.span()
        start, end = found.span("hidden")
        return start, (end if self.run is None else found.end())


def _shape(
    anchors: Sequence[bytes], steps: Sequence[bytes], *, run: bytes | None = None, any_case: bool = False
) -> Shape:
    """Make a shape of steps. Each step is a piece of the head and, for what may be cut short, how it may begin: a step
    of the form x{n} or x{n,m} may begin with fewer.
    """
    partial = b""
    for step in reversed(steps):
        begun = re.sub(rb"\{(\d+)(?:,(\d+))?\}$", lambda found: b"{0,%s}" % (found[2] or found[1]), step)
        partial = begun if not partial else b"%s(?:\\Z|%s)" % (begun, partial)
    starts = b"(?:%s)" % b"|".join(map(re.escape, anchors))
    return Shape(
        tuple(anchors),
        re.compile(starts + b"".join(steps)),
        re.compile(starts + b"(?:\\Z|" + partial + b"\\Z)"),
        None if run is None else re.compile(run),
        any_case,
    )


def _prefixed(anchors: Sequence[bytes], letters: bytes, least: int) -> Shape:
    return _shape(anchors, [letters + b"{%d}" % least], run=letters + b"*")


_HIDDEN = b"(?P<hidden>)"
_WORD = rb"[A-Za-z0-9_]"
_QUOTE = rb"[\"']{0,1}"
_KEYS = (b"password", b"passwd", b"passphrase")
_KEYS_OF_MANY_THINGS = (b"secret", b"token", b"api_key", b"api-key", b"apikey", b"access_key")
_BARE = rb"[^\s\"'&,;]"
_PEM_FIRST_LINE = rb"[a-z0-9 ]{0,40}private key(?: block)?-----"

SHAPES: tuple[Shape, ...] = (
    _prefixed((b"chf_", b"cha_", b"che_", b"cht_"), _WORD, 20),  # Chiffon's own
    _prefixed((b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_", b"github_pat_"), _WORD, 20),
    _prefixed((b"glpat-",), rb"[A-Za-z0-9_.-]", 16),
    _prefixed((b"xoxb-", b"xoxp-", b"xoxa-", b"xoxr-", b"xoxs-", b"xapp-"), rb"[A-Za-z0-9-]", 10),
    _shape((b"AKIA", b"ASIA"), [rb"[A-Z0-9]{16}"]),
    _shape(
        (b"eyJ",), [rb"[A-Za-z0-9_-]{8,1024}", rb"\.{1}", rb"[A-Za-z0-9_-]{8}"], run=rb"[A-Za-z0-9_.-]*"
    ),  # JSON Web Token
    _shape((b"bearer",), [rb"\s{1,2}", _HIDDEN, rb"[a-z0-9._~+/=-]{8}"], run=rb"[A-Za-z0-9._~+/=-]*", any_case=True),
    _shape(
        (b"authorization",),
        [
            _QUOTE,
            rb"\s{0,2}",
            rb"[:=]{1}",
            rb"\s{0,2}",
            _QUOTE,
            rb"[a-z0-9-]{3,20}",
            rb"\s{1,2}",
            _HIDDEN,
            rb"[^\s\"']",
        ],
        run=rb"[^\s\"']*",
        any_case=True,
    ),
    _shape(
        _KEYS,
        [_QUOTE, rb"\s{0,2}", rb"[:=]{1}", rb"\s{0,2}", _QUOTE, _HIDDEN, _BARE],
        run=_BARE + b"*",
        any_case=True,
    ),
    _shape(
        (*_KEYS, *_KEYS_OF_MANY_THINGS),
        [_QUOTE, rb"\s{0,2}", rb"[:=]{1}", rb"\s{0,2}", rb"\"{1}", _HIDDEN, rb"[^\"\n]"],
        run=rb"[^\"\n]*",
        any_case=True,
    ),
    _shape(_KEYS_OF_MANY_THINGS, [rb"={1}", rb"'{0,1}", _HIDDEN, _BARE], run=_BARE + b"*", any_case=True),
    _shape((b"://",), [rb"[^\s/:@\"']{0,64}", rb":{1}", rb"(?P<hidden>[^\s/@\"']{1,256})", rb"@{1}"]),
    Shape(
        (b"-----begin",),
        re.compile(rb"-----begin" + _PEM_FIRST_LINE),
        re.compile(rb"-----begin[a-z0-9 ]{0,60}-{0,5}\Z"),
        any_case=True,
        is_pem=True,
    ),
)

ANCHORS = frozenset(anchor.lower() for shape in SHAPES for anchor in shape.anchors)
