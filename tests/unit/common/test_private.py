"""What another user could change is not relied on."""

import grp
import os
import pwd
import stat
from contextlib import nullcontext
from pathlib import Path

import pytest

from agents.gate.trust import open_trust
from agents.identity.credential import Credential, keep_credential
from agents.identity.registration import open_identity
from agents.settings import AgentSettings
from chiffon.places import sole_owner
from common.config import SharedSettings
from common.policy.read import read_policy
from common.private import NotPrivate, check_private, make_private
from orchestrator.http.tls import tls_context
from orchestrator.signing.directory import read_keys

OWNER = pwd.getpwuid(os.geteuid()).pw_name
OWN_GROUP = grp.getgrgid(pwd.getpwuid(os.geteuid()).pw_gid).gr_name == OWNER


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o702, 0o1777])
def test_what_every_user_may_write_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)

    with pytest.raises(NotPrivate, match=r"The place .* can be written by every user, .*chmod go-w"):
        check_private(tmp_path, "The place")


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o755])
def test_what_only_its_user_may_write_is_taken(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    check_private(tmp_path, "The place")
    check_private(tmp_path / "not there", "The place")


def test_what_another_user_or_group_may_write_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o770)
    if OWN_GROUP:
        check_private(tmp_path, "The place")
    if os.geteuid() != 0:
        with pytest.raises(NotPrivate):
            check_private(Path("/tmp"), "The place")
        return
    nobody = pwd.getpwnam("nobody")
    os.chown(tmp_path, 0, nobody.pw_gid)
    with pytest.raises(NotPrivate, match="can be written by its group"):
        check_private(tmp_path, "The place")
    tmp_path.chmod(0o700)
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    with pytest.raises(NotPrivate, match="belongs to nobody"):
        check_private(tmp_path, "The place")


def test_a_directory_is_made_for_this_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private(tmp_path / "above" / "state")
    finally:
        os.umask(before)

    assert (tmp_path / "above" / "state").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "above").stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)


def test_nothing_starts_with_files_or_directories_that_others_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    folder.chmod(0o777)
    file.write_text("")
    file.chmod(0o666)
    settings = AgentSettings.load(state_dir=folder)
    monkeypatch.setenv("CHIFFON_CONFIG", str(file))

    for start in (
        lambda: sole_owner(folder).__enter__(),
        lambda: open_identity(settings, work_types=()).__enter__(),
        lambda: keep_credential(folder, Credential(os.urandom, "infra", "cha_x")),  # type: ignore[arg-type]
        lambda: open_trust(tmp_path / "state", file),
        lambda: read_keys(folder),
        lambda: read_policy(file),
        lambda: tls_context(file, file),
        SharedSettings.load,
    ):
        with pytest.raises(NotPrivate, match="can be written by every user"):
            start()


@pytest.mark.parametrize("members", [[], [OWNER]])
def test_the_group_of_the_owner_alone_may_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, members: list[str]
) -> None:
    have_group(monkeypatch, OWNER, members)
    tmp_path.chmod(0o770)

    check_private(tmp_path, "The place")


@pytest.mark.parametrize(("name", "members"), [(OWNER, ["eve"]), (OWNER, [OWNER, "eve"]), ("staff", []), (None, [])])
def test_a_group_that_may_have_others_in_it_may_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str | None, members: list[str]
) -> None:
    have_group(monkeypatch, name, members)
    tmp_path.chmod(0o770)

    with pytest.raises(NotPrivate, match="can be written by its group"):
        check_private(tmp_path, "The place")


def have_group(monkeypatch: pytest.MonkeyPatch, name: str | None, members: list[str]) -> None:
    """Have every file's group be of that name, with these members; None: it is not known to the system."""

    def find(number: int) -> grp.struct_group:
        if name is None:
            raise KeyError(number)
        return grp.struct_group((name, "x", number, members))

    monkeypatch.setattr(grp, "getgrgid", find)


@pytest.mark.parametrize(("owner", "is_taken"), [(0, True), (os.geteuid(), True), (os.geteuid() + 1, False)])
def test_what_another_user_owns_is_refused_and_what_root_owns_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, is_taken: bool
) -> None:
    found = os.stat_result((stat.S_IFDIR | 0o700, 1, 1, 1, owner, 1, 0, 0, 0, 0))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "stat", lambda _: found)
        with nullcontext() if is_taken else pytest.raises(NotPrivate, match="belongs to"):
            check_private(tmp_path, "The place")
