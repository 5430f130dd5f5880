"""How every module looks: what it opens with, what it is called, what its tests may not do."""

import ast
from pathlib import PurePosixPath

from tests.architecture.source import called_names, dotted_name, modules, walked

SAYS_NOTHING = {"util", "utils", "helper", "helpers", "misc", "manager", "managers", "stuff", "tools"}
UNFINISHED = {"pytest.skip", "pytest.mark.skip", "pytest.mark.skipif", "pytest.mark.xfail", "pytest.importorskip"}


def test_every_module_opens_by_saying_what_it_is_for() -> None:
    silent = [module.path for module in modules("src") if not ast.get_docstring(module.tree)]

    assert not silent, "modules without a docstring:\n" + "\n".join(silent)


def test_no_name_says_nothing() -> None:
    vague = [
        module.path
        for module in (*modules("src"), *modules("tests"))
        if SAYS_NOTHING & set(PurePosixPath(module.path).with_suffix("").parts)
    ]

    assert not vague, "a file or folder is named after what it does, not:\n" + "\n".join(vague)


def test_no_test_waits_by_sleeping() -> None:
    asleep = [
        module.at(call, f"{name}: wait for the event itself, or with tests.eventually")
        for module in modules("tests")
        if not module.path.startswith("tests/services/")  # they watch a process start, from no event loop
        for call, name in called_names(module.tree)
        if name in {"sleep", "time.sleep"} or (name == "asyncio.sleep" and _is_long(call))
    ]

    assert not asleep, "\n".join(asleep)


def test_no_test_is_skipped() -> None:
    skipped = [
        module.at(node, dotted_name(node))
        for module in modules("tests")
        for node in walked(module.tree)
        if isinstance(node, ast.Attribute) and dotted_name(node) in UNFINISHED
    ]

    assert not skipped, "\n".join(skipped)


def _is_long(call: ast.Call) -> bool:
    """Say whether a sleep is more than giving way: a pause that a poll repeats is at most half a second."""
    match call.args:
        case [ast.Constant(value=int() | float() as seconds)]:
            return seconds > 0.5
        case _:
            return False
