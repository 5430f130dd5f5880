"""The state that a `chiffon up` may start from, made once in a run."""

from pathlib import Path

import pytest

from tests.acceptance.deployment import prepare_state
from tests.services import run


@pytest.fixture(scope="session")
async def prepared() -> Path:
    """The state of a `chiffon up` that was started once; all workers copy the same one."""
    state = run.root() / "prepared-up"
    with run.alone("prepared-up"):
        if not state.exists():
            making = state.with_suffix(".new")
            making.mkdir(mode=0o711)
            await prepare_state(making)
            making.rename(state)
    return state
