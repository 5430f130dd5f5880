"""A secret that nothing can show again survives a power cut, in a file that only this user can read."""

from pathlib import Path

from chiffon.credentials import write_token
from chiffon.rabbitmq.credentials import write_private
from tests.on_disk import watched_disk


def test_a_token_is_on_disk_by_name_when_it_was_written(tmp_path: Path) -> None:
    with watched_disk() as disk:
        write_token(tmp_path / "token", "chf_x")

        assert disk.read(tmp_path / "token") == b"chf_x\n"


def test_the_password_of_an_agent_is_on_disk_by_name_when_it_was_written(tmp_path: Path) -> None:
    with watched_disk() as disk:
        write_private(tmp_path / "agent.env", "PASSWORD=x")

        assert disk.read(tmp_path / "agent.env") == b"PASSWORD=x"
