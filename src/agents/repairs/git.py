"""The git commands that a repair runs, in the workspace and in a worktree of its own.

The repository of the workspace gets that worktree, and what verified repairs have left in the workspace; the objects of
what a patch changes are the worktree's own, and go with it. Hooks and the file-system monitor of the repository do not
run. In the worktree git is told where the repository is, so that no command of a repair can lead it elsewhere by the
file `.git` there.
"""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.repairs.failures import StepFailed
from agents.repairs.log import StepLog
from agents.repairs.programs import Programs, Ran

GIT_SECONDS = 120.0
PROGRAM = "git"
_OPTIONS = (
    "--no-pager",
    "--literal-pathspecs",
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "gc.auto=0",
)
_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}


@dataclass(frozen=True, slots=True)
class Change:
    """A path that a patch changes, with its modes in git before and after; "000000" where there is no file."""

    path: str
    old_mode: str
    new_mode: str


@dataclass(frozen=True, slots=True)
class Git:
    """The repository of a workspace."""

    programs: Programs
    workspace: Path

    async def checked_out(self) -> tuple[Path, str]:
        """Return the top directory of the repository that the workspace is in, and the commit that is checked out."""
        ran = await self._run("rev-parse", "--show-toplevel", "--verify", "--quiet", "HEAD^{commit}")
        if ran.code != 0 and ran.text:  # the directory is known
            raise StepFailed(f"The repository in {self.workspace} has no commit yet, so there is nothing to patch.")
        ran.check(f"The workspace {self.workspace} is not usable as a git repository")
        top, _, commit = ran.text.rpartition("\n")
        return Path(top), commit

    async def uncommitted(self, paths: Sequence[str] = ()) -> list[str]:
        """Return the paths, or those of them that are given, that differ from the commit: staged, changed or new."""
        ran = await self._run("status", "--porcelain=v1", "-z", "--untracked-files=all", "--no-renames", "--", *paths)
        ran.check("git cannot say what is changed in the workspace")
        return [_path(entry[3:]) for entry in ran.output.split(b"\0") if entry]

    async def paths_of(self, diff: Path) -> list[str]:
        """Return the paths that a diff names. Raises `StepFailed` when it is no diff."""
        ran = await self._run("apply", "--numstat", "-z", str(diff))
        ran.check("The diff cannot be read")
        return [_path(entry.split(b"\t", 2)[2]) for entry in ran.output.split(b"\0") if entry.count(b"\t") >= 2]

    async def add_worktree(self, place: Path, commit: str) -> None:
        """Check a commit out into a directory of its own, in place of what is left there."""
        await asyncio.to_thread(_removed, place)
        # By force, for git may still know of one that was there; twice, for one whose making was cut off is locked.
        force = ("--force", "--force")
        ran = await self._run("worktree", "add", *force, "--detach", "--quiet", str(place), commit)
        ran.check("git cannot make a worktree of its own for the patch")

    async def fill_worktree(self, place: Path, tree: str) -> None:
        """Make a worktree what a tree holds. It must be new, for what has run in it could lead git elsewhere."""
        ran = await self._run("read-tree", "--reset", "-u", tree, within=place)
        ran.check("git cannot restore what is patched")

    async def tree(self, place: Path) -> "Tree":
        """Return a worktree that is new, to be worked in."""
        ran = await self._run("rev-parse", "--absolute-git-dir", "--git-path", "objects", within=place)
        ran.check("git does not know its own worktree")
        git_dir, _, objects = ran.text.rpartition("\n")
        return Tree(self.programs, place, git_dir, place / objects)

    async def remove_worktree(self, place: Path) -> None:
        """Remove a worktree, also one that is broken, half made, or not there, or whose repository is gone."""
        if not await asyncio.to_thread(self.workspace.is_dir):
            await asyncio.to_thread(_removed, place)
            return
        ran = await self._run("worktree", "remove", "--force", "--force", str(place))
        if not await asyncio.to_thread(_removed, place) and ran.code == 0:
            return
        # What git still knew of it; when it knew nothing, it fails, which is as well.
        await self._run("worktree", "remove", "--force", "--force", str(place))

    async def _run(self, *words: str, within: Path | None = None) -> Ran:
        place = within or self.workspace
        argv = [PROGRAM, *_OPTIONS, *words]
        return await self.programs.run(argv, cwd=place, seconds=GIT_SECONDS, more=_ENVIRONMENT)


@dataclass(frozen=True, slots=True)
class Tree:
    """A worktree: a copy of the workspace as it is committed, with an index of its own. `git_dir` is its own, too.

    `objects` is where those of the repository are.
    """

    programs: Programs
    place: Path
    git_dir: str
    objects: Path

    async def write_tree(self) -> str:
        """Return the tree of all that is there now and not ignored."""
        (await self._run("add", "--all")).check("git cannot take in what was changed")
        ran = await self._run("write-tree")
        ran.check("git cannot take in what was changed")
        return ran.text

    async def apply(self, diff: Path, log: StepLog) -> None:
        """Apply a diff to the files; all of it, or nothing."""
        argv = self._argv("apply", "--verbose", "--whitespace=nowarn", str(diff))
        ran = await self.programs.run(argv, cwd=self.place, seconds=GIT_SECONDS, log=log, more=_ENVIRONMENT)
        ran.check("The diff does not apply")

    async def changes(self, base: str) -> list[Change]:
        """Return what differs from a tree: staged, changed, and new unless it is ignored; also what was committed."""
        await asyncio.to_thread(_make_objects, self._changed, self.objects)
        (await self._run("add", "--all", is_apart=True)).check("git cannot take in what was changed")
        ran = await self._run("diff-index", "--cached", "-z", "--no-renames", base, is_apart=True)
        ran.check("git cannot say what was changed")
        entries = ran.output.split(b"\0")
        return [
            Change(_path(path), *head.decode().removeprefix(":").split(" ")[:2])
            for head, path in zip(entries[::2], entries[1::2], strict=False)
        ]

    async def diff(self, base: str) -> bytes:
        """Return what `changes` says, as a diff that can be applied."""
        plain = ("--no-renames", "--no-ext-diff", "--no-textconv")
        words = ("diff-index", "--cached", "-p", "--binary", "--full-index", *plain, base)
        ran = await self._run(*words, is_apart=True)
        ran.check("git cannot say what was changed")
        return ran.output

    @property
    def _changed(self) -> Path:
        """Where the objects of what was changed are."""
        return Path(self.git_dir) / "changed"

    async def _run(self, *words: str, is_apart: bool = False) -> Ran:
        apart = {"GIT_OBJECT_DIRECTORY": str(self._changed)} if is_apart else {}
        more = {**_ENVIRONMENT, **apart}
        return await self.programs.run(self._argv(*words), cwd=self.place, seconds=GIT_SECONDS, more=more)

    def _argv(self, *words: str) -> list[str]:
        return [PROGRAM, *_OPTIONS, f"--git-dir={self.git_dir}", f"--work-tree={self.place}", *words]


def _make_objects(place: Path, others: Path) -> None:
    """Make a directory of objects that has those of another one, too."""
    (place / "info").mkdir(mode=0o700, parents=True, exist_ok=True)
    (place / "info" / "alternates").write_text(f"{others}\n")


def _removed(place: Path) -> bool:
    """Remove a directory; return whether there was one."""
    try:
        shutil.rmtree(place)
    except FileNotFoundError:
        return False
    return True


def _path(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise StepFailed(f"The name of a file is not UTF-8: {name!r}.") from None
