"""Which token a client sends, and to whom it sends none."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chiffon.credentials import TokenUnreadable, find_token, kept_for, read_token, write_token
from chiffon.http import UnusableToken, bearer

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


def test_a_token_that_is_given_wins_over_a_file_that_is_named_and_that_over_what_is_kept(
    token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named").write_text("chf_named\n")
    with kept_for(SERVER, token_file):
        monkeypatch.setenv("CHIFFON_TOKEN_FILE", str(tmp_path / "named"))
        assert find_token(SERVER) == "chf_named"
        monkeypatch.setenv("CHIFFON_TOKEN", "chf_given\n")
        assert find_token(SERVER) == "chf_given"
        assert find_token(SERVER, file=token_file) == "chf_kept"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"two words", b"gr\xc3\xbcn"])
def test_a_file_that_is_named_and_holds_no_token_is_an_error_and_no_other_token_is_sent(
    token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    named = tmp_path / "named"
    if content is not None:
        named.write_bytes(content)
    monkeypatch.setenv("CHIFFON_TOKEN_FILE", str(named))

    with kept_for(SERVER, token_file), pytest.raises(TokenUnreadable, match="named"):
        find_token(SERVER)


@pytest.mark.parametrize("token", ["", " ", "s3cret two", "s3cret\nx-more:1", "s3cret\x00x", "s3crèt"])
def test_what_no_header_can_hold_is_not_sent_and_not_repeated(token: str) -> None:
    with pytest.raises(UnusableToken) as refused:
        bearer(token)

    assert "s3cr" not in str(refused.value)


def test_the_space_around_a_token_is_not_sent() -> None:
    assert bearer(" chf_x\n") == {"authorization": "Bearer chf_x"}
    assert bearer(None) == {}


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Let whatever is made be for everybody, unless it is made otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("open_umask")
def test_a_token_is_kept_for_its_user_only_whatever_the_umask(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.with_name("token.new").write_text("of a crash, and for everybody")

    write_token(file, "chf_x")

    assert (file.read_text(), file.stat().st_mode & 0o777) == ("chf_x\n", 0o600)


def test_a_token_that_could_not_be_written_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    write_token(tmp_path / "token", "chf_old")
    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match="No space"):
        write_token(tmp_path / "token", "chf_new")

    assert read_token(tmp_path / "token") == "chf_old"
