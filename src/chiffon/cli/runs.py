"""`chiffon runs`: plans of several steps, and repairs of compose services, with what people do about them."""

from typing import Annotated, Literal
from uuid import UUID, uuid4

from cyclopts import App, Parameter

from chiffon.cli.console import print_json, put, say
from chiffon.cli.options import AS_TABLE, HERE, Flag, Printing, Target, TextSource
from chiffon.cli.outcome import Exit, Usage, exit_of_run
from chiffon.cli.parameters import collect_inputs, read_text
from chiffon.cli.run_cancel import cancel
from chiffon.cli.run_files import artifacts, download, print_diff, upload
from chiffon.cli.run_follow import follow_run
from chiffon.cli.run_orders import abandon, approve, reject
from chiffon.cli.run_view import accepted_line, print_run, print_runs
from chiffon.cli.run_waits import lines_of
from chiffon.client import Client
from common.compose import COMPOSE_REPAIR, ONLY_PLANNED
from common.errors import InvalidField
from common.json_text import NotJson, read_json
from common.plans.check import check as check_plan
from common.plans.model import Plan
from common.plans.read import plan_of, read_plan
from common.plans.status import RunStatus
from common.rest.runs import Run, RunSummary

Inputs = Annotated[list[str] | None, Parameter(name="--input", negative=(), allow_leading_hyphen=True)]
Follow = Annotated[bool, Parameter(name=["--follow", "-f"], negative=())]
Quiet = Annotated[bool, Parameter(name=["--quiet", "-q"], negative=())]

app = App(
    name="runs",
    group_commands="Commands",
    help="Run plans of several steps and repairs of services, and follow, approve, cancel and retry them.",
    result_action="return_value",
)
for command in (cancel, approve, reject, abandon, artifacts, download, upload):
    app.command(command)


@app.command
def start(
    plan: str,
    /,
    *,
    input_: Inputs = None,
    inputs_file: TextSource = None,
    name: str | None = None,
    key: str | None = None,
    run_id: UUID | None = None,
    wait: Annotated[bool, Flag] = False,
    follow: Follow = False,
    quiet: Quiet = False,
    target: Target = HERE,
) -> int:
    """Start a run of a plan.

    ```
    chiffon runs start plan.toml
    chiffon runs start plan.toml --input version=1.4.2 --input 'hosts=["web-1","web-2"]' -f
    chiffon runs start plan.toml --key release --wait -o json
    ```

    Prints the id of the run and returns; the same id with the same content exists once. With --wait or -f it stays to
    the end, and the outcome is the exit status: 0 succeeded, 10 failed, 11 cancelled, 13 rolled back. Ctrl-C then only
    detaches; it never cancels the run.

    Parameters
    ----------
    plan
        The plan, in TOML, or in JSON if its name ends with .json; `-` reads TOML from standard input.
    input_
        An input of the plan as NAME=VALUE; VALUE may be JSON, where the default is no text. Repeat it for more.
    inputs_file
        A file with a JSON object of inputs; `-` reads standard input.
    name
        What to call the run, in lists; by default the name of the plan.
    key
        Of the runs with the same key one runs at a time, in the order in which they were started.
    run_id
        The id of the run; made here when not given.
    wait
        Stay until it ends, then show it.
    follow
        Stay until it ends, showing each step as it goes and what it writes.
    quiet
        With -f: only the steps, and not what they write.
    """
    given = _plan(plan)
    inputs = collect_inputs(input_ or (), inputs_file, given.inputs)
    check_plan(given, inputs)
    run = run_id or uuid4()

    async def work(client: Client) -> int:
        accepted = await client.start_run(given, inputs, run_id=run, name=name, key=key)
        return await _stay(client, accepted, target, wait=wait, follow=follow, quiet=quiet)

    return target.run(work, resume=f"chiffon runs watch {run}" if wait or follow else "")


@app.command
def check(
    plan: str,
    /,
    *,
    input_: Inputs = None,
    inputs_file: TextSource = None,
    printing: Printing = AS_TABLE,
) -> int:
    """Check a plan without starting it; the first mistake is named with its place. Nothing is asked of any server.

    ```
    chiffon runs check plan.toml
    ```

    Exit status 2: no orchestrator would take it.

    Parameters
    ----------
    plan
        The plan, in TOML, or in JSON if its name ends with .json; `-` reads TOML from standard input.
    input_
        An input of the plan as NAME=VALUE; VALUE may be JSON, where the default is no text. Repeat it for more.
    inputs_file
        A file with a JSON object of inputs; `-` reads standard input.
    """
    given = _plan(plan)
    check_plan(given, collect_inputs(input_ or (), inputs_file, given.inputs))
    if printing.is_json:
        print_json(given.model_dump(mode="json", by_alias=True, exclude_unset=True))
    else:
        put(f"{given.name or plan}: {len(given.steps)} {'step' if len(given.steps) == 1 else 'steps'}")
    return Exit.OK


@app.command
def repair(
    service: str,
    /,
    *argv: str,
    instruction: Annotated[str, Parameter(name=["--instruction", "-i"])],
    patch: TextSource = None,
    priority: Literal["normal", "high"] = "normal",
    wait: Annotated[bool, Flag] = False,
    follow: Follow = False,
    quiet: Quiet = False,
    target: Target = HERE,
) -> int:
    """Repair a compose service: change its files, build and restart it, and verify that it works.

    ```
    chiffon runs repair web -i "Serve the health page." --patch fix.diff -f
    chiffon runs repair web -i "Pin the base image." -- sed -i s/latest/1.36/ Dockerfile
    ```

    The host of the service does all of it. If a step fails, it restores the files and the image that were there before:
    the run ends as rolled_back. Prints the id of the run; with --wait or -f it stays to the end, as `chiffon runs
    start` does.

    Parameters
    ----------
    service
        A service of the orchestrator's services file.
    argv
        After `--`: a command that changes the files, in place of --patch; the service must allow it.
    instruction
        What is to be done, for people.
    patch
        A file with a unified diff, as `git diff` writes it; `-` reads standard input. Without it and without a command,
        the commands that the services file names change the files.
    priority
        Whether it goes before repairs of normal priority.
    wait
        Stay until it ends, then show it.
    follow
        Stay until it ends, showing each step as it goes.
    quiet
        With -f: only the steps, and not what they write.
    """
    if argv and patch is not None:
        raise Usage("give either --patch or a command after --, not both")
    diff = None if patch is None else read_text(patch)
    accepted_id: UUID | None = None

    async def work(client: Client) -> int:
        nonlocal accepted_id
        commands = [list(argv)] if argv else None
        accepted = await client.repair(service, instruction, diff=diff, commands=commands, priority=priority)
        accepted_id = accepted.run_id
        if not (wait or follow):
            _print_accepted(accepted_line(accepted.run_id, accepted.status), accepted.run_id, accepted, target)
            return Exit.OK
        run = await client.run(accepted.run_id)
        return await _stay(client, run, target, wait=wait, follow=follow, quiet=quiet)

    status = target.run(work)
    if status == Exit.INTERRUPTED and accepted_id is not None:
        say("", f"Detached; the repair goes on. To see it again: chiffon runs watch {accepted_id}")
    return status


@app.command(name="list")
def list_(
    *,
    status: RunStatus | None = None,
    name: str | None = None,
    service: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
    target: Target = HERE,
) -> int:
    """List runs, newest first.

    ```
    chiffon runs list
    chiffon runs list --status awaiting-approval
    chiffon runs list --service web --limit 200 -o json
    ```

    Parameters
    ----------
    status
        Only those with this status.
    name
        Only those of this name.
    service
        Only repairs of this service.
    limit
        At most this many.
    cursor
        Go on where an earlier list ended.
    """

    async def work(client: Client) -> int:
        page = await client.runs(status=status, name=name, service=service, limit=limit, cursor=cursor)
        if target.is_json:
            print_json(page)
            return Exit.OK
        print_runs(page.items)
        if page.next_cursor:
            say(f"There are more: --cursor {page.next_cursor}")
        return Exit.OK

    return target.run(work)


@app.command
def show(
    run: UUID,
    /,
    *,
    diff: Annotated[bool, Flag] = False,
    earlier: Annotated[bool, Flag] = False,
    target: Target = HERE,
) -> int:
    """Show a run with its steps, what the host of a repair does inside them, and why a step waits.

    ```
    chiffon runs show 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11
    chiffon runs show 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11 --diff
    ```

    The exit status is 0 whatever the status of the run is; `chiffon runs watch` gives that of the outcome.

    Parameters
    ----------
    run
        The id of the run.
    diff
        Also what a repair changes: the newest patch.diff, with its SHA-256. Every character beyond ASCII is written out
        as \\u…, so that nothing is hidden and no letter looks like another.
    earlier
        Also earlier tries of its steps, whose place a retry or another round of a loop took.
    """
    if diff and target.is_json:
        raise Usage("--diff is for people; with -o json, use chiffon runs download for patch.diff")

    async def work(client: Client) -> int:
        found = await client.run(run)
        print_run(found, as_json=target.is_json, earlier=earlier)
        if not target.is_json:
            put(*await lines_of(client, found))
        if diff:
            await print_diff(client, run)
        return Exit.OK

    return target.run(work)


@app.command
def watch(run: UUID, /, *, quiet: Quiet = False, target: Target = HERE) -> int:
    """Show a run as it goes, until it ends: its steps, how long they take, and what they write.

    ```
    chiffon runs watch 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11
    ```

    At a terminal the steps stay at the bottom. Elsewhere each change is a line, and with -o json each event. While a
    step waits, the reason is shown, as `chiffon why` says it of its task, and again when it is another one. A lost
    connection is made again, and nothing is missed. The outcome is the exit status: 0 succeeded, 10 failed,
    11 cancelled, 13 rolled back. Ctrl-C ends the looking, not the run.

    Parameters
    ----------
    run
        The id of the run.
    quiet
        Only the steps, and not what they write.
    """

    async def work(client: Client) -> int:
        return _outcome(await follow_run(client, run, as_json=target.is_json, quiet=quiet))

    return target.run(work, resume=f"chiffon runs watch {run}")


@app.command
def retry(
    run: UUID,
    /,
    *,
    from_: Annotated[str | None, Parameter(name="--from")] = None,
    reason: str = "",
    follow: Follow = False,
    quiet: Quiet = False,
    target: Target = HERE,
) -> int:
    """Try a run that has ended again, from the steps that failed.

    ```
    chiffon runs retry 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11 --reason "the disk has room again"
    chiffon runs retry 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11 --from build -f
    ```

    Steps that succeeded before it are kept, with their artifacts. A run that has not ended is not tried again: exit
    status 5.

    Parameters
    ----------
    run
        The id of the run.
    from_
        Begin with this step of the plan; of a repair with patch, build, restart or verify.
    reason
        Why, for those who read it later.
    follow
        Stay until it ends, showing each step as it goes and what it writes.
    quiet
        With -f: only the steps, and not what they write.
    """

    async def work(client: Client) -> int:
        # The steps of a repair are those that its host does, and not those of its plan.
        if (await client.run(run)).service is None:
            await client.retry_run(run, from_step=from_, reason=reason)
        else:
            await client.retry_repair(run, from_step=from_, reason=reason)
        accepted = await client.run(run)
        return await _stay(client, accepted, target, wait=False, follow=follow, quiet=quiet)

    return target.run(work, resume=f"chiffon runs watch {run}" if follow else "")


async def _stay(client: Client, accepted: RunSummary, target: Target, *, wait: bool, follow: bool, quiet: bool) -> int:
    """Show what became of a run that was accepted just now, or how to see it."""
    if follow:
        return _outcome(await follow_run(client, accepted.run_id, as_json=target.is_json, quiet=quiet, from_start=True))
    if not wait:
        _print_accepted(accepted_line(accepted.run_id, accepted.status), accepted.run_id, accepted, target)
        return Exit.OK
    ended = await client.wait_for_run(accepted.run_id)
    print_run(ended, as_json=target.is_json)
    return exit_of_run(ended.status)


def _print_accepted(line: str, run_id: UUID, accepted: object, target: Target) -> None:
    if target.is_json:
        print_json(accepted)
    else:
        say(line)
        put(str(run_id))


def _outcome(ended: Run | None) -> int:
    return Exit.OK if ended is None else exit_of_run(ended.status)


def _plan(source: str) -> Plan:
    text = read_text(source)
    if not source.endswith(".json"):
        plan = read_plan(text)
    else:
        try:
            plan = plan_of(read_json(text))
        except NotJson as error:
            raise Usage(f"{source}: {error}") from error
    _check_no_repair(plan)
    return plan


def _check_no_repair(plan: Plan) -> None:
    """Raise `InvalidField` for the work that only the orchestrator plans; its own plans pass `check_plan`, too."""
    for number, step in enumerate(plan.steps):
        for part, place in ((step, f"steps[{number}]"), (step.undo, f"steps[{number}].undo")):
            if part is not None and part.work_type == COMPOSE_REPAIR:
                raise InvalidField(f"{place}.work_type", ONLY_PLANNED)
