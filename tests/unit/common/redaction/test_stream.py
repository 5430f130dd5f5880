"""Secrets are hidden however the output is cut into pieces."""

import base64
import itertools
import json
import random
import re
import string
import subprocess
from collections.abc import Sequence
from shutil import which
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from common.redaction.forms import SecretTooShort, forms
from common.redaction.shapes import MOST_PEM_BYTES
from common.redaction.stream import MARK, Redactor
from common.redaction.text import redacted
from common.redaction.values import MOST_PASSING, Values
from tests.encodings import ALPHABETS, base64_of, ways
from tests.unit.common.redaction.oracle import hidden

SECRET = "correct horse/battery+staple"
AWKWARD = "#~a b$c`d\"e'f\\g!h(i)j*k~l/m+n&o<p>q=r{s}t[u]v;w|x?y,z:1^2%3@4"

# Beginnings, middles and ends of tokens, and what stands around them.
PIECES = (
    b"chf_", b"a" * 20, b"ghp_", b"0" * 19, b"AKIA", b"AKIAIOSFODNN7EXAMPLE", b"eyJ", b"eyJhbGciOiJIUzI1NiJ9", b".",
    b"-----BEGIN RSA PRIVATE KEY-----", b"-----BEGIN ", b"-----END", b"-----", b"--", b"MIIEow\n", b"PRIVATE KEY",
    b"password", b"Password", b"=", b": ", b" ", b"\n", b'"', b"'", b"Authorization", b"Bearer ", b"basic ", b"token",
    b"secret", b"api_key", b"x", b"://", b"user", b":", b"@", b"/", b"xoxb-", b"glpat-", b"-1234567890", b",", b"\xff",
)  # fmt: skip


def oracle(data: bytes, known: Values) -> bytes:
    [forms] = known.forms
    return hidden(data, forms.exact, forms.wrapping)


def cut(data: bytes, at: Sequence[int]) -> list[bytes]:
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def passed(redactor: Redactor, pieces: Sequence[bytes]) -> bytes:
    return b"".join([*(redactor.feed(piece) for piece in pieces), redactor.flush()])


@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=16),
    places=st.lists(st.integers(0, 10_000), max_size=12),
)
@example(pieces=[b"Authorization", b": ", b"Bearer ", b"a" * 20], places=[18])
@example(pieces=[b"-----BEGIN RSA PRIVATE KEY-----", b"MIIEow\n", b"--", b"-----END"], places=[38, 40, 42])
@example(pieces=[b"Bearer ", b"eyJhbGciOiJIUzI1NiJ9"], places=[])
@example(pieces=[b"-----BEGIN RSA PRIVATE KEY-----", b"-----"], places=[])
def test_tokens_are_hidden_whatever_the_pieces(pieces: list[bytes], places: list[int]) -> None:
    data = b"".join(pieces)

    assert passed(Redactor(Values()), cut(data, places)) == hidden(data)


@given(
    secrets=st.lists(st.text("ab/ü\n", min_size=6, max_size=9), min_size=1, max_size=3),
    noise=st.lists(st.text("ab/ü\r\n", max_size=5), min_size=1, max_size=8),
    order=st.lists(st.integers(0, 100), max_size=8),
    breaks=st.lists(st.integers(0, 10_000), max_size=5),
    places=st.lists(st.integers(0, 10_000), max_size=12),
)
def test_known_values_that_overlap_are_hidden_whatever_the_pieces(
    secrets: list[str], noise: list[str], order: list[int], breaks: list[int], places: list[int]
) -> None:
    known = Values(secrets)
    [sought] = known.forms
    words = sorted(sought.exact | sought.wrapping) + [text.encode() for text in noise]
    data = b"\n".join(cut(b"".join(words[number % len(words)] for number in order), breaks))

    assert passed(Redactor(known), cut(data, places)) == oracle(data, known)


@given(
    secret=st.text(st.characters(codec="utf-8"), min_size=6, max_size=40).filter(lambda text: text.strip() == text),
    before=st.binary(max_size=7),
    after=st.binary(max_size=7),
    places=st.lists(st.integers(0, 10_000), max_size=6),
)
def test_no_encoding_lets_a_value_through(secret: str, before: bytes, after: bytes, places: list[int]) -> None:
    value = secret.encode()
    # The whole groups of three bytes that hold nothing but the value: whoever sees them can read it.
    skipped = -len(before) % 3
    readable = base64.b64encode(value[skipped : skipped + (len(value) - skipped) // 3 * 3])
    around = before + value + after
    whole = [written.encode() for written in ways(secret).values()]
    known = Values([secret])
    for written, telling in (
        *((text, text) for text in whole),
        (base64.b64encode(around), readable),
        (base64.urlsafe_b64encode(around), readable.replace(b"+", b"-").replace(b"/", b"_")),
        (around.hex().encode(), value.hex().encode()),
        (around.hex().upper().encode(), value.hex().upper().encode()),
    ):
        shown = passed(Redactor(known), cut(b"<" + written + b">", places))

        assert not telling or telling not in shown


@pytest.mark.parametrize("way", ways(AWKWARD))
def test_a_value_is_hidden_in_every_way_to_write_it(way: str) -> None:
    written = f"<{ways(AWKWARD)[way]}>".encode()

    for pieces in ([written], cut(written, range(len(written)))):
        assert passed(Redactor(Values([AWKWARD])), pieces) == b"<" + MARK + b">"


@pytest.mark.parametrize("before", range(3))
@pytest.mark.parametrize("name", ALPHABETS)
def test_a_value_is_hidden_in_either_base64_wherever_it_begins(name: str, before: int) -> None:
    secret, alphabet = "?>~" * 6 + "ÿ>~?" * 3, ALPHABETS[name]
    telling = list(base64_of(secret.encode(), alphabet))[before]
    assert set(alphabet) <= set(telling), "it is written with what the alphabets differ in"

    shown = redacted(f"<{telling.decode()}>", Values([secret]))

    assert shown == "<[redacted]>"


@pytest.mark.parametrize("pause", [b"\n", b"\r\n"])
@pytest.mark.parametrize("columns", [64, 76])
@pytest.mark.parametrize("size", [6, 40, 84, 150])
def test_wrapped_base64_is_hidden_at_every_offset_whatever_the_pieces(size: int, columns: int, pause: bytes) -> None:
    secret = "".join(random.choices(string.ascii_letters + string.digits, k=size))
    known = Values([secret])
    for offset in range(columns * 3 // 4 + 3):
        text = base64.b64encode(bytes(offset) + secret.encode() + bytes(60))
        lines = [text[at : at + columns] for at in range(0, len(text), columns)]
        # The characters all of whose bits are the secret's; the others tell nothing of it alone.
        telling = range(-(-offset * 8 // 6), (offset + size) * 8 // 6)
        first, last = (at + at // columns * len(pause) for at in (telling[0], telling[-1]))
        data = pause.join(lines)
        expected = data[:first] + MARK + data[last + 1 :]
        step = random.randint(1, 2 * columns)

        for pieces in ([data], cut(data, range(len(data))), cut(data, range(step, len(data), step))):
            assert passed(Redactor(known), pieces) == expected


@pytest.mark.parametrize("columns", [32, 60, 64])
@pytest.mark.parametrize("is_upper", [False, True])
def test_wrapped_hexadecimal_is_hidden_at_every_offset(columns: int, is_upper: bool) -> None:
    for offset in range(columns // 2):
        text = (bytes(offset) + SECRET.encode() + bytes(20)).hex()
        written = (text.upper() if is_upper else text).encode()
        data = b"\n".join(written[at : at + columns] for at in range(0, len(written), columns))

        shown = passed(Redactor(Values([SECRET])), cut(data, range(len(data)))).replace(b"\n", b"")

        assert shown == b"00" * offset + MARK + b"00" * 20


def test_of_endless_line_breaks_in_a_form_little_is_held() -> None:
    redactor = Redactor(Values([SECRET]))
    redactor.feed(base64.b64encode(SECRET.encode())[:10])

    assert max(redactor.feed(b"\n" * 64) is not None and redactor.holds for _ in range(100)) < 1000


TAIL = "0123456789abcdefghijABCDEFGHIJ"
WHOLE = [
    *(f"{kind}{TAIL}" for kind in ("chf_", "cha_", "che_", "cht_")),
    *(f"{kind}{TAIL}" for kind in ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_")),
    "glpat-0123456789abcdefghij",
    *(f"{kind}123456789012-abcdef" for kind in ("xoxb-", "xoxp-", "xoxa-", "xoxr-", "xoxs-", "xapp-")),
    "AKIAIOSFODNN7EXAMPLE",
    "ASIAIOSFODNN7EXAMPLE",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
]
NAMED = [
    ("Authorization: Bearer abcdefgh.ijk", "Authorization: Bearer [redacted]"),
    ("authorization: basic dXNlcjpwYXNz ok", "authorization: basic [redacted] ok"),
    ("see bearer abcdefgh.ijk here", "see bearer [redacted] here"),
    ("PASSWORD=hunter2 next", "PASSWORD=[redacted] next"),
    ("passwd: hunter2, next", "passwd: [redacted], next"),
    ("passphrase='hunter2'", "passphrase='[redacted]'"),
    ("password=a-password: hunter2 next", "password=[redacted] [redacted] next"),
    ('{"password": "two words", "a": 1}', '{"password": "[redacted]", "a": 1}'),
    ('{"secret": "two words", "a": 1}', '{"secret": "[redacted]", "a": 1}'),
    ("GITHUB_TOKEN=abc123\n", "GITHUB_TOKEN=[redacted]\n"),
    ("API_KEY=abc123 X-API-KEY=abc123", "API_KEY=[redacted] X-API-KEY=[redacted]"),
    ("amqp://guest:guest@broker:5672/", "amqp://guest:[redacted]@broker:5672/"),
    ("redis://:hunter2@cache/0", "redis://:[redacted]@cache/0"),
    ("-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n", "[redacted]-----END PRIVATE KEY-----\n"),
    ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----", "[redacted]-----END RSA PRIVATE KEY-----"),
    (
        "-----BEGIN PGP PRIVATE KEY BLOCK-----\nlQVY\n-----END PGP PRIVATE KEY BLOCK-----",
        "[redacted]-----END PGP PRIVATE KEY BLOCK-----",
    ),
    ("unexpected token: name", "unexpected token: name"),
    ("see https://example.org/a:b@c", "see https://example.org/a:b@c"),
]


@pytest.mark.parametrize("text", WHOLE)
def test_a_token_is_hidden_whole(text: str) -> None:
    assert redacted(f"before {text} after", Values()) == "before [redacted] after"


@pytest.mark.parametrize(("text", "shown"), NAMED)
def test_of_what_names_a_secret_only_the_secret_is_hidden(text: str, shown: str) -> None:
    assert redacted(text, Values()) == shown


@pytest.mark.parametrize(("text", "shown"), [*((f"a {token} b", "a [redacted] b") for token in WHOLE), *NAMED])
def test_a_token_is_hidden_wherever_it_is_cut(text: str, shown: str) -> None:
    data = text.encode()

    for pieces in ([data[:at], data[at:]] for at in range(len(data))):
        assert passed(Redactor(Values()), pieces) == shown.encode()
    assert passed(Redactor(Values()), cut(data, range(len(data)))) == shown.encode()


def test_a_key_without_its_end_is_hidden_as_far_as_a_key_goes() -> None:
    shown = redacted("-----BEGIN PRIVATE KEY-----" + "k" * MOST_PEM_BYTES + "and on", Values())

    assert shown == "[redacted]and on"


def test_a_key_inside_another_is_hidden_as_far_as_a_key_goes() -> None:
    first = b"-----BEGIN PRIVATE KEY-----"
    data = first + b"k" * 1000 + first + b"k" * MOST_PEM_BYTES + b"and on"

    assert passed(Redactor(Values()), cut(data, range(0, len(data), 500))) == MARK + b"and on"


def test_output_that_begins_no_secret_goes_on_at_once() -> None:
    redactor = Redactor(Values([SECRET]))

    assert redactor.feed(b"step 1 of 3 done\n") == b"step 1 of 3 done\n"


def test_the_beginning_of_a_secret_waits_for_the_rest_and_is_let_go_when_asked_for() -> None:
    redactor = Redactor(Values([SECRET]))

    assert redactor.feed(b"it is correct ho") == b"it is "
    assert redactor.holds == 10
    assert redactor.flush() == b"correct ho"


def test_a_token_goes_on_after_a_pause() -> None:
    redactor = Redactor(Values())
    shown = redactor.feed(b"chf_" + b"a" * 20) + redactor.flush()

    assert shown + redactor.feed(b"more, of it\n") == MARK + b", of it\n"


def test_lines_of_a_key_are_known_by_themselves() -> None:
    line = "MIIEowIBAAKCAQEAtelling"
    known = Values([f"-----BEGIN X-----\n{line}\n-----END X-----\n"])

    assert redacted(f"  | {line}", known) == "  | [redacted]"


def test_what_is_held_is_bounded() -> None:
    redactor = Redactor(Values())
    worst = b"eyJ" + b"a" * 3000

    assert max(redactor.feed(worst[at : at + 7]) is not None and redactor.holds for at in range(0, 3000, 7)) < 1100


def test_a_value_too_short_to_be_hidden_is_refused() -> None:
    with pytest.raises(SecretTooShort, match="at least 6 characters"):
        forms("short")


def test_of_values_that_come_and_go_the_last_that_were_used_are_kept() -> None:
    values = Values()
    values.hide(*(f"value-{number:04}" for number in range(MOST_PASSING)))
    values.hide("value-0000", "one value more")

    [sought] = values.forms
    assert {b"value-0000", b"one value more"} <= sought.exact
    assert b"value-0001" not in sought.exact


def test_the_agents_own_values_stay_hidden_however_many_come_and_go() -> None:
    values = Values(["password of the broker"])
    values.hide(*(f"value-{number:04}" for number in range(MOST_PASSING + 1)))

    assert redacted("the password of the broker", values) == "the [redacted]"


BASH = which("bash")


@pytest.mark.parametrize("secret", [AWKWARD, AWKWARD + "ä€😀", "~" + AWKWARD, AWKWARD + "\t\x1b\x7fé", "simple words"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
@pytest.mark.parametrize(
    "command",
    [
        'printf %q "$1"',
        'echo "${1@Q}"',
        'S="$1"; declare -p S',
        'export S="$1"; export -p',
        'S="$1"; set',
        'set -x; : "$1"',
    ],
)
def test_no_way_in_which_a_shell_quotes_lets_a_value_through(command: str, locale: str, secret: str) -> None:
    assert BASH is not None, "bash is not installed"
    ran = subprocess.run(
        [BASH, "-c", f"exec 2>&1; unset BASH_EXECUTION_STRING; {command}", "shell", secret],
        capture_output=True,
        check=True,
        env={"LC_ALL": locale},
    )

    assert MARK in passed(Redactor(Values([secret])), [ran.stdout])


@pytest.mark.parametrize("secret", [AWKWARD, AWKWARD + "ä€😀\u2028"])
@pytest.mark.parametrize(
    "left_as_it_is",
    ["", "/", "~", "!'()*~", ";,/?:@&=+$#!'()*~", "*"],
    ids=["PHP", "curl", "rawurlencode", "encodeURIComponent", "encodeURI", "Java"],
)
@pytest.mark.parametrize("space", ["%20", "+"])
def test_no_program_that_writes_urls_lets_a_value_through(space: str, left_as_it_is: str, secret: str) -> None:
    written = quote(secret, safe=left_as_it_is).replace("%20", space)
    if "~" not in left_as_it_is:
        written = written.replace("~", "%7E")

    for text in (written, re.sub("%..", lambda found: found[0].lower(), written)):
        assert redacted(f"<{text}>", Values([secret])) == "<[redacted]>"


@pytest.mark.parametrize("is_upper", [False, True])
@pytest.mark.parametrize("is_ascii", [False, True])
@pytest.mark.parametrize("escaped", ["", "/", "<>&", "<>&'", "<>&'+"], ids=["Python", "PHP", "Go", "Django", ".NET"])
def test_no_program_that_writes_json_lets_a_value_through(escaped: str, is_ascii: bool, is_upper: bool) -> None:
    secret = AWKWARD + "ä€"
    written = json.dumps(secret, ensure_ascii=is_ascii)
    for one in escaped:
        written = written.replace(one, "\\/" if one == "/" else f"\\u{ord(one):04x}")
    if is_upper:
        written = re.sub(r"(?<=\\u)....", lambda found: found[0].upper(), written)

    assert redacted(written, Values([secret])) == '"[redacted]"'
