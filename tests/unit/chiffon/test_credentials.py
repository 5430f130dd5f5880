"""Which token a client sends, and to whom it sends none."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chiffon.credentials import find_token, kept_for

SERVER = "http://127.0.0.1:8420"
KEEP = """
import sys, time
from pathlib import Path
from chiffon.credentials import kept_for
with kept_for(sys.argv[1], Path(sys.argv[2])):
    print("kept", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def token_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("CHIFFON_TOKEN", "CHIFFON_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "token"
    file.write_text("chf_kept")
    return file


def test_a_kept_token_is_for_its_own_server_while_it_runs(token_file: Path) -> None:
    with kept_for(SERVER, token_file):
        assert find_token(SERVER) == find_token("http://localhost:8420") == "chf_kept"
        assert find_token("http://127.0.0.1:8421") is None
    assert find_token(SERVER) is None


def test_the_token_of_a_server_that_was_killed_is_sent_to_nobody_who_takes_its_port(token_file: Path) -> None:
    command = [sys.executable, "-c", KEEP, SERVER, str(token_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as keeper:
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == b"kept\n"
        assert find_token(SERVER) == "chf_kept"
        os.kill(keeper.pid, signal.SIGKILL)

    assert find_token(SERVER) is None
    with kept_for(SERVER, token_file):
        assert find_token(SERVER) == "chf_kept"
