"""However a path is put into an argument, and whatever stands around it, a rule about files sees it."""

import string

from hypothesis import given
from hypothesis import strategies as st

from common.policy.arguments import problem_of
from common.policy.patterns import Globs
from tests.fuzz.bounds import bounded

ALLOWED = Globs(["/srv/app/**"])
# What may stand within a name; anything else may be the end of one.
WITHIN_NAMES = set(string.ascii_letters + string.digits + "_.+~/-")

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)
ends_of_names = st.characters(exclude_categories=["Cs", "L", "N", "M"]).filter(lambda one: one not in WITHIN_NAMES)


@given(before=texts, end=ends_of_names, after=texts)
@bounded(300)
def test_a_path_after_what_ends_a_name_is_seen(before: str, end: str, after: str) -> None:
    assert problem_of([f"{before}{end}/etc/shadow{after}"], ALLOWED) is not None


@given(option=st.text(alphabet=string.ascii_letters + string.digits + "-_+.", max_size=20), after=texts)
@bounded(200)
def test_a_path_after_the_letters_of_an_option_is_seen(option: str, after: str) -> None:
    assert problem_of([f"-{option}/etc/shadow{after}"], ALLOWED) is not None


@given(before=texts, after=texts)
@bounded(200)
def test_a_way_up_is_seen(before: str, after: str) -> None:
    assert problem_of([f"{before}/../{after}"], ALLOWED) is not None


@given(
    names=st.lists(st.text(alphabet=string.ascii_letters + string.digits + "_.-", min_size=1), min_size=1, max_size=9)
)
@bounded(200)
def test_a_plain_path_below_an_allowed_folder_is_allowed(names: list[str]) -> None:
    path = "/srv/app/x" + "/".join(name.strip(".") or "x" for name in names)

    assert problem_of([path, f"--file={path}", f"@{path}"], ALLOWED) is None
