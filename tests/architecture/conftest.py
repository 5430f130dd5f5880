"""Tests that read the parsed source run in one worker: to parse it takes longer than to look through it."""

import pytest

from tests.architecture import source


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        module = getattr(item, "module", None)
        names = vars(module) if module is not None else {}
        if names.get("__name__", "").startswith("tests.architecture.") and source.modules in names.values():
            item.add_marker(pytest.mark.xdist_group("source"))
