"""The files that runs and tasks keep: list and download them; and files for work, handed in."""

from pathlib import Path
from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from chiffon.cli.console import print_json, put, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.run_view import print_artifacts
from chiffon.client import AnyId, Client
from chiffon.errors import ApiError
from common.errors import ErrorCode
from common.rest.artifacts import Artifact
from common.visible import visible

# Of the artifact that holds what a repair changes.
DIFF_TYPE = "patch_diff"


def artifacts(id_: Annotated[UUID, Parameter(name="ID")], /, *, target: Target = HERE) -> int:
    """List the files that a run keeps, or a task, oldest first.

    ```
    chiffon runs artifacts 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11
    ```

    Parameters
    ----------
    id_
        The id of a run, or of a task.
    """

    async def work(client: Client) -> int:
        found = await _artifacts(client, id_)
        if target.is_json:
            print_json(found)
        else:
            print_artifacts(found)
        return Exit.OK

    return target.run(work)


def download(
    id_: Annotated[UUID, Parameter(name="ID")],
    /,
    *names: str,
    to: Path = Path(),
    target: Target = HERE,
) -> int:
    """Download files that a run keeps, or a task, and check their SHA-256.

    ```
    chiffon runs download 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11 patch.diff --to .
    chiffon runs download 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11 --to artifacts
    ```

    Prints the path of each file. What is there already is replaced.

    Parameters
    ----------
    id_
        The id of a run, or of a task.
    names
        The paths of the files, as `chiffon runs artifacts` lists them; by default all that are stored.
    to
        The directory to put them into, below their paths.
    """

    async def work(client: Client) -> int:
        found = {one.path: one for one in await _artifacts(client, id_)}
        if unknown := [name for name in names if name not in found]:
            say(*(f"chiffon: {name} is no artifact of {id_}" for name in unknown))
            return Exit.NOT_FOUND
        wanted = [found[name] for name in names] or [one for one in found.values() if one.stored_at is not None]
        for one in wanted:
            path = await client.download(one, to)
            if target.is_json:
                print_json({"path": str(path), "sha256": one.sha256, "size": one.size})
            else:
                put(str(path))
        return Exit.OK

    return target.run(work)


def upload(file: Path, /, *, target: Target = HERE) -> int:
    """Hand in a file for work that is to get it, and print its SHA-256.

    ```
    SHA=$(chiffon runs upload site.tar)
    chiffon dispatch shell_script --param 'files={"site.tar":{"upload":"'$SHA'"}}' --wait -- tar tf site.tar
    ```

    Parameters
    ----------
    file
        The file.
    """

    async def work(client: Client) -> int:
        stored = await client.upload(file)
        if target.is_json:
            print_json(stored)
        else:
            put(stored.sha256)
        return Exit.OK

    return target.run(work)


async def print_diff(client: Client, run_id: UUID) -> None:
    """Print the newest diff that a run keeps, as approvers see texts."""
    diffs = [one for one in await client.artifacts(run_id=run_id) if one.type == DIFF_TYPE]
    if not diffs:
        say("It keeps no diff, or does not keep it yet.")
        return
    text = b"".join([piece async for piece in client.read_artifact(diffs[-1])]).decode(errors="replace")
    put("", f"{diffs[-1].path}, SHA-256 {diffs[-1].sha256}:", "", *map(visible, text.removesuffix("\n").split("\n")))


async def _artifacts(client: Client, id_: AnyId) -> list[Artifact]:
    """Return what the run of this id keeps, or else the task."""
    try:
        return await client.artifacts(run_id=id_)
    except ApiError as error:
        if error.error_code != ErrorCode.RUN_NOT_FOUND:
            raise
        try:
            return await client.artifacts(task_id=id_)
        except ApiError:
            raise error from None
