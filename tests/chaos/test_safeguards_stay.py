"""Nobody takes a safeguard from a real system by a slip."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from common import safeguards


@pytest.mark.parametrize("command", ["server", "agent"])
async def test_nothing_starts_without_a_safeguard_unless_that_is_meant(command: str, tmp_path: Path) -> None:
    environment = {**os.environ, safeguards.REMOVE: "fence", "CHIFFON_AGENT_STATE_DIR": str(tmp_path)}

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "chiffon",
        command,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()

    assert process.returncode == 1
    assert safeguards.REMOVE.encode() in output
