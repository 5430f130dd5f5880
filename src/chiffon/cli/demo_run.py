"""`chiffon demo-run`: repair a service of Docker Compose on this machine, break it, and show the rollback."""

import shutil
import tempfile
from pathlib import Path
from typing import Annotated
from uuid import uuid4

from chiffon.cli.console import put, say
from chiffon.cli.options import Flag
from chiffon.cli.outcome import Exit
from chiffon.cli.stopping import run_until_stopped


def demo_run(*, keep: Annotated[bool, Flag] = False) -> int:
    """Repair a service of Docker Compose on this machine, break it, and show that it is rolled back.

    ```
    chiffon demo-run
    ```

    Makes a compose project in a temporary directory, with a base image of busybox that is built here, and starts all
    that Chiffon needs. A failing service is repaired by a diff; then a change that breaks it is rolled back by its
    host. Each step is shown as it goes. What this machine lacks is said first: Docker, Docker Compose, git or busybox.
    The exit status is 0 only when everything ended as it should have.

    Parameters
    ----------
    keep
        Leave the project, its containers and the directory as they are at the end.
    """
    return run_until_stopped(lambda: _demo_run(keep=keep), when_stopped=Exit.INTERRUPTED)


async def _demo_run(*, keep: bool) -> int:
    from chiffon.client import Client
    from chiffon.demo.compose_project import Project, find_tools
    from chiffon.demo.repair import run_repairs
    from chiffon.places import free_port
    from chiffon.up import Plan, everything

    tools = await find_tools()
    state = _temporary_directory()
    port, other = free_port("127.0.0.1"), free_port("127.0.0.1")
    project = Project(f"chiffon-demo-{uuid4().hex[:8]}", state / "project", port, other, tools)
    services = state / "services.toml"
    services.write_text(project.services_file(), encoding="utf-8")
    plan = Plan(
        state_dir=state,
        agents={"infra": 1},
        port=0,
        durable=False,
        services_file=services,
        compose_root=project.folder,
    )
    succeeded = False
    try:
        say(f"Making the project {project.name} in {project.folder} …")
        await project.make()
        async with everything(plan, say) as running, Client(running.site.url, token=running.token) as client:
            put("")
            succeeded = await run_repairs(client, project)
    finally:
        if keep:
            say(f"Everything is left in {state}, and the project {project.name} runs.")
        else:
            await project.remove()
            if succeeded:
                shutil.rmtree(state, ignore_errors=True)
            else:
                say(f"The logs are in {state / 'logs'}")
    return Exit.OK if succeeded else Exit.ERROR


def _temporary_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="chiffon-demo-run-"))
    # PostgreSQL's user must be able to pass through when this runs as root.
    directory.chmod(0o711)
    return directory
