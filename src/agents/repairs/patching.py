"""The first steps of a repair, which touch nothing that runs: look at the host, patch a copy, build from it."""

import asyncio
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from agents.repairs import files
from agents.repairs.docker import before_tag, candidate_tag, find_compose, override_of
from agents.repairs.failures import StepFailed
from agents.repairs.git import Change
from agents.repairs.log import StepLog
from agents.repairs.rules import REGULAR_MODES, env_files_in, named, outside, shown_diff, within
from agents.repairs.state import Content, Stage, Touched
from agents.repairs.store import AFTER, BEFORE
from agents.repairs.work import Work
from common.canonical import canonical_json
from common.compose import MOST_SHOWN_BYTES

COMMAND_SECONDS = 900.0
MOST_FILES = 1000
NO_CHANGE = b"# The patch changes nothing.\n"
EXECUTABLE = 0o111


async def analyze(work: Work) -> str:
    """See whether the host can do the repair; nothing is changed."""
    log, profile = work.log("analyze"), work.unit.profile
    docker = await work.docker().server_version()
    await log.say(f"docker {docker} answers")
    command, major, version = await find_compose(work.programs, profile, work.store.folder, work.versions)
    await work.note(compose=command, compose_major=major)
    await log.say(f"{' '.join(command)} {version}")
    await asyncio.to_thread(_check_place, work.workspace, work.root, profile.compose_files)
    await _check_repository(work)
    services = await work.images(await work.compose())
    if work.unit.service not in services:
        has = named(list(services)) or "none"
        raise StepFailed(f"The compose files have no service {work.unit.service!r}; they have: {has}.")
    for container in await work.docker().containers(profile.project, work.unit.service):
        await log.say(f"container {container.name}: {container.status}, image {container.image}")
    changed = await work.git().uncommitted()
    if work.patch is not None and work.patch.diff is not None:
        paths = await _paths_of(work, work.patch.diff)
        await _check_clean(work, within(changed, [path for path in paths if path not in outside(paths, profile)]))
    if changed:
        note = f"changed in the workspace and not committed, so not part of what is built: {named(changed)}"
        await log.say(note)
    return f"Docker {docker} and {' '.join(command)} {version} answer, and the workspace can be patched."


def _check_place(workspace: Path, root: Path | None, compose_files: Sequence[str]) -> None:
    """Raise `StepFailed` unless the workspace is where repairs are allowed, and has its compose files. Blocking."""
    if not workspace.is_dir():
        raise StepFailed(f"The workspace {workspace} is no directory of this host.")
    if root is not None and not workspace.resolve().is_relative_to(root.resolve()):
        raise StepFailed(f"The workspace {workspace} is not below the compose_root of this agent, {root}.")
    missing = [name for name in compose_files if not (workspace / name).is_file()]
    if missing:
        raise StepFailed(f"The workspace {workspace} has no file {named(missing)}.")


async def _check_repository(work: Work) -> str:
    """Return the commit that is checked out. Raises `StepFailed` when the workspace cannot be patched."""
    top, commit = await work.git().checked_out()
    if await asyncio.to_thread(top.resolve) != await asyncio.to_thread(work.workspace.resolve):
        raise StepFailed(f"The workspace {work.workspace} must be the top of its git repository, which is {top}.")
    return commit


async def patch(work: Work) -> str:
    """Change a copy of the workspace, and keep what differs; the workspace itself is not touched."""
    log, source = work.log("patch"), work.patch
    assert source is not None
    await asyncio.to_thread(_check_place, work.workspace, work.root, work.unit.profile.compose_files)
    commit = await _check_repository(work)
    await work.note(stage=Stage.PATCHING)
    await work.git().add_worktree(work.tree, commit)
    tree = await work.git().tree(work.tree)
    left = await _carry_over(work)
    await work.note(base_commit=commit, base_tree=await tree.write_tree(), left=left)
    if source.diff is not None:
        await tree.apply(await _written_diff(work, source.diff), log)
    else:
        await _run_commands(work, log)
    changes = await tree.changes(work.unit.base_tree)
    await _check_all_seen(work, source.diff, changes)
    diff = await tree.diff(work.unit.base_tree) if changes else NO_CHANGE
    await asyncio.to_thread((work.logs / "patch.diff").write_bytes, work.secrets.hidden_bytes(diff))
    _check_changes(changes, outside([one.path for one in changes], work.unit.profile))
    shown = _shown(work, diff) if work.is_shown else []
    if changes:
        await _check_clean(work, await work.git().uncommitted([one.path for one in changes]))
    touched = await asyncio.to_thread(_take_in, work, changes)
    digest = hashlib.sha256(diff).hexdigest()
    await work.note(stage=Stage.PATCHED, files=touched, diff_sha256=digest, shown=shown)
    for one in changes:
        await log.say(f"changes {one.path}")
    return f"Changes {named([one.path for one in changes])}." if changes else "The patch changes nothing."


def _shown(work: Work, diff: bytes) -> list[str]:
    size = len(diff)
    if size <= MOST_SHOWN_BYTES:
        lines = shown_diff(diff, lambda text: work.hidden(work.secrets.hidden(text)))
        size = len(canonical_json(lines))
        if size <= MOST_SHOWN_BYTES:
            return lines
    raise StepFailed(
        f"People cannot be asked about this diff: it has {size} bytes, and they are shown at most {MOST_SHOWN_BYTES}. "
        "Nothing was built."
    )


async def _paths_of(work: Work, diff: str) -> list[str]:
    """Return the paths that the requested diff names; git is asked once."""
    if work.in_diff is None:
        work.in_diff = await work.git().paths_of(await _written_diff(work, diff))
    return work.in_diff


async def _written_diff(work: Work, diff: str) -> Path:
    path = work.logs / "requested.diff"
    await asyncio.to_thread(path.write_text, diff, encoding="utf-8", newline="")
    return path


async def _carry_over(work: Work) -> dict[str, str | None]:
    """Take what verified repairs have left in the workspace, and nobody has committed or changed, into the copy.

    Return what earlier repairs of this service have left of that.
    """
    left = await asyncio.to_thread(work.store.left_in, work.unit.profile.workspace)
    uncommitted = set(await work.git().uncommitted(list(left))) if left else set()
    carried = set[str]()
    for path in sorted(uncommitted & left.keys()):
        found = await asyncio.to_thread(files.look_at, work.workspace, path)
        if (None if found is None else found[0].sha256) != left[path]:
            continue
        carried.add(path)
        if found is None:
            await asyncio.to_thread(files.remove, work.tree, path)
        else:
            await asyncio.to_thread(files.write, work.tree, path, *found)
    return {path: digest for path, digest in work.unit.left.items() if path in carried}


async def _run_commands(work: Work, log: StepLog) -> None:
    source, commands = work.patch, work.commands
    assert source is not None
    assert source.commands is not None
    if commands.user is not None:
        _, gid, uid = commands.user
        # Passing through is no reading: what lies beside the copy is the agent's own, file by file.
        await asyncio.to_thread(work.store.folder.chmod, 0o711)
        await asyncio.to_thread(files.give_all, work.tree, uid, gid)
    programs = replace(work.programs, environment=commands.environment)
    for argv in source.commands:
        if not work.unit.profile.allows(argv):
            raise StepFailed(f"No command of the service may begin with {argv[0]!r} and what follows it there.")
        ran = await programs.run(argv, cwd=work.tree, seconds=COMMAND_SECONDS, log=log, user=commands.user)
        ran.check(f"The command {argv[0]!r} failed")


async def _check_all_seen(work: Work, requested: str | None, changes: Sequence[Change]) -> None:
    """Raise `StepFailed` when a diff changes what git does not see: that would be neither shown nor built."""
    if requested is None:
        return
    seen = {one.path for one in changes}
    unseen = [path for path in await _paths_of(work, requested) if path not in seen]
    if unseen:
        raise StepFailed(f"The diff names what git ignores, or sees no change in: {named(unseen)}. Nothing was built.")


def _check_changes(changes: Sequence[Change], stray: Sequence[str]) -> None:
    if stray:
        raise StepFailed(f"The patch changes what is not in the allow list: {named(stray)}. Nothing was built.")
    odd = [one.path for one in changes if not {one.old_mode, one.new_mode} <= REGULAR_MODES]
    if odd:
        raise StepFailed(f"A repair changes regular files only, no links and no repositories: {named(odd)}.")
    if len(changes) > MOST_FILES:
        raise StepFailed(f"The patch changes {len(changes)} files, and a repair changes at most {MOST_FILES}.")


async def _check_clean(work: Work, uncommitted: Sequence[str]) -> None:
    """Raise `StepFailed` when one of these files that the patch changes or makes is not of a verified repair."""
    if not uncommitted:
        return
    left = await asyncio.to_thread(work.store.left_in, work.unit.profile.workspace)
    dirty = [path for path in uncommitted if not await _is_left(work, path, left)]
    if dirty:
        raise StepFailed(
            f"Somebody has changed what the patch changes, and not committed it: {named(dirty)}. Commit it, or take "
            "it back."
        )


async def _is_left(work: Work, path: str, left: dict[str, str | None]) -> bool:
    """Return whether a file is as a verified repair has left it."""
    if path not in left:
        return False
    found = await asyncio.to_thread(files.look_at, work.workspace, path)
    return (None if found is None else found[0].sha256) == left[path]


def _take_in(work: Work, changes: Sequence[Change]) -> list[Touched]:
    """Keep what each file holds before and after. Blocking."""
    return [_take_in_one(work, one) for one in changes]


def _take_in_one(work: Work, change: Change) -> Touched:
    path, key = change.path, work.unit.key
    before, after = files.look_at(work.workspace, path), files.look_at(work.tree, path)
    if before is not None and change.old_mode == "000000":
        raise StepFailed(f"The patch makes the file {path}, and the workspace has one that git ignores.")
    if before is None and change.old_mode != "000000":
        raise StepFailed(f"The patch changes the file {path}, and the workspace has none.")
    if before is not None:
        work.store.save(key, BEFORE, before[1])
    if after is None:
        return Touched(path=path, before=None if before is None else before[0], after=None)
    work.store.save(key, AFTER, after[1])
    uid, gid = (before[0].uid, before[0].gid) if before else files.owner_of_new(work.workspace, path)
    is_executable = change.new_mode == "100755"
    mode = _mode(0o644 if before is None else before[0].mode, is_executable=is_executable)
    new = Content(sha256=after[0].sha256, mode=mode, uid=uid, gid=gid)
    return Touched(path=path, before=None if before is None else before[0], after=new)


def _mode(mode: int, *, is_executable: bool) -> int:
    """Return permissions with those to run a file that git knows: for all who may read it."""
    return mode | (mode & 0o444) >> 2 if is_executable else mode & ~EXECUTABLE


async def build(work: Work) -> str:
    """Build the image of the service, under a name of its own, from a new copy.

    Not from the one that was patched, which may hold what git ignores, and so nobody has seen.
    """
    log, service, key = work.log("build"), work.unit.service, work.unit.key
    compose, docker = await work.compose(), work.docker()
    await check_commit(work)
    await _make_again(work)
    await asyncio.to_thread(_make_env_files, work)
    containers = await docker.containers(work.unit.profile.project, service)
    image = containers[0].image if containers else None
    await work.note(stage=Stage.BUILDING, containers=containers, image_before=image, candidate=None)
    if image is not None:
        await docker.tag(image, before_tag(key))
    await docker.untag(candidate_tag(key))
    override = work.store.override(key)
    await asyncio.to_thread(override.write_text, override_of(service, candidate_tag(key)), encoding="utf-8")
    await compose.build(work.tree, override, log)
    candidate = await docker.image_id(candidate_tag(key))
    await work.note(stage=Stage.BUILT, candidate=candidate)
    if candidate is None:
        return "There is nothing to build: the service uses an image as it is."
    await log.say(f"built {candidate}")
    return f"Built {candidate}."


async def check_commit(work: Work) -> None:
    """Raise `StepFailed` when another commit is checked out than was patched: what comes of it would lack the newer."""
    _, commit = await work.git().checked_out()
    if commit != work.unit.base_commit:
        raise StepFailed(
            "Another commit is checked out in the workspace than when the patch was made: begin again with 'patch'."
        )


async def _make_again(work: Work) -> None:
    """Make the copy again, of what the commit and the seen changes hold and nothing else."""
    await work.git().add_worktree(work.tree, work.unit.base_commit)
    await work.git().fill_worktree(work.tree, work.unit.base_tree)
    await asyncio.to_thread(_write_patched, work)


def _write_patched(work: Work) -> None:
    for one in work.unit.files:
        if one.after is None:
            files.remove(work.tree, one.path)
        else:
            files.write(work.tree, one.path, one.after, work.store.saved(work.unit.key, AFTER, one.after.sha256))


def _make_env_files(work: Work) -> None:
    """Give the copy an empty file for each `env_file` that only the workspace has. Blocking.

    Compose refuses to build without them, and what they hold is for containers only: so no secret comes into an image.
    """
    empty = Content(sha256=hashlib.sha256().hexdigest(), mode=0o600, uid=os.geteuid(), gid=os.getegid())
    compose_files = [work.tree / name for name in work.unit.profile.compose_files]
    texts = [file.read_text(errors="replace") for file in compose_files if file.is_file()]
    for path in (path for text in texts for path in env_files_in(text)):
        if (work.workspace / path).is_file() and not (work.tree / path).exists():
            files.write(work.tree, path, empty, b"")
