"""`chiffon dispatch`: hand in a task and, if asked, stay until it ends."""

from datetime import timedelta
from typing import Annotated
from uuid import UUID, uuid4

from cyclopts import Parameter

from chiffon.cli.agents import find_agent
from chiffon.cli.console import print_json, put, say
from chiffon.cli.fan_out import parse_batch, parse_on, print_accepted, say_skipped, wait_for_fan_out
from chiffon.cli.follow import follow_task, wait_for_task
from chiffon.cli.options import HERE, Flag, Target, TextSource
from chiffon.cli.outcome import Exit, Usage, exit_of_work
from chiffon.cli.parameters import collect_pairs, collect_parameters, collect_texts
from chiffon.cli.show import print_task
from chiffon.client import NORMAL_PRIORITY, Client
from common.lifecycle import Status


def dispatch(
    work_type: str,
    /,
    *argv: str,
    param: Annotated[list[str] | None, Parameter(name="--param", negative=(), allow_leading_hyphen=True)] = None,
    params_file: TextSource = None,
    script: TextSource = None,
    priority: Annotated[int, Parameter(name=["--priority", "-p"])] = NORMAL_PRIORITY,
    agent_type: str | None = None,
    agent: str | None = None,
    require: Annotated[list[str] | None, Parameter(name="--require", negative=())] = None,
    prefer: Annotated[list[str] | None, Parameter(name="--prefer", negative=())] = None,
    task_id: UUID | None = None,
    request_id: UUID | None = None,
    idempotent: Annotated[bool, Flag] = False,
    max_attempts: int | None = None,
    max_duration: float | None = None,
    ordering_key: str | None = None,
    concurrency_key: str | None = None,
    concurrency_limit: int | None = None,
    expires_after: float | None = None,
    approval: UUID | None = None,
    name: str | None = None,
    label: Annotated[list[str] | None, Parameter(name="--label", negative=())] = None,
    on: str | None = None,
    batch: str | None = None,
    stop_after: int | None = None,
    wait: Annotated[bool, Flag] = False,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative=())] = False,
    raw: Annotated[bool, Flag] = False,
    target: Target = HERE,
) -> int:
    """Hand in a task.

    ```
    chiffon dispatch shell_script --wait -- uname -a
    chiffon dispatch shell_script --script backup.sh --priority 5 -f
    chiffon dispatch shell_script --param 'env={"LANG":"C"}' -- df -h
    chiffon dispatch echo --param message=hello --wait -o json
    chiffon dispatch shell_script --ordering-key web-1 --expires-after 600 -- ./deploy.sh
    chiffon dispatch shell_script --on label=zone=eu --batch 10% --stop-after 2 --wait -- systemctl restart web
    ```

    Prints the id of the task and returns; sending the same id again does not run it twice. With --wait or -f it stays
    to the end and shows where the task stands, and the outcome is the exit status: 0 completed, 10 failed,
    11 cancelled, 12 ran out of time. Ctrl-C then only detaches; it never cancels the task.

    Parameters
    ----------
    work_type
        What kind of work it is: chiffon work-types lists them.
    argv
        After `--`: the program and its arguments, for shell_script.
    param
        A parameter as KEY=VALUE; VALUE may be JSON. Repeat it for more.
    params_file
        A file with a JSON object of parameters; `-` reads standard input.
    script
        A file whose text is run by a shell, for shell_script; `-` reads standard input.
    priority
        5 critical, 4 high, 3 normal, 2 low, 1 background.
    agent_type
        Run it on agents of this type.
    agent
        Run it on this agent: its name, its id, or the beginning of its id.
    require
        A label that the agent must have, as NAME=VALUE; of a number at least that much. Repeat it for more.
    prefer
        A label that the agent should rather have, as NAME=VALUE. Repeat it for more.
    task_id
        The id of the task; made here when not given.
    request_id
        The idempotency key, when it is not to be the task's own.
    idempotent
        The work may be started again when an agent is lost.
    max_attempts
        Start it at most this often; more than 1 holds also without --idempotent.
    max_duration
        Stop it after this many seconds.
    ordering_key
        Start it when everything dispatched before it with this key has ended.
    concurrency_key
        Share a limit with all tasks of this key; needs --concurrency-limit.
    concurrency_limit
        At most so many tasks of the concurrency key run at a time.
    expires_after
        Cancel it if it still waits after this many seconds.
    approval
        The approval that was asked for beforehand, for exactly this work.
    name
        What to call it, in lists.
    label
        A label by which it is found again, as NAME=VALUE. Repeat it for more.
    on
        Run it on each of several agents: all, label=NAME=VALUE, or names with commas between them.
    batch
        With --on: how many agents work at a time, a number or a percentage like 10%.
    stop_after
        With --on: after so many failed tasks none of the rest begins.
    wait
        Stay until it ends, then show it.
    follow
        Stay until it ends, printing what it writes.
    raw
        With --wait or -f: print its output as it is, with control sequences, also on a terminal.
    """
    parameters = collect_parameters(
        work_type, pairs=param or (), params_file=params_file, script=script, argv=argv, max_duration=max_duration
    )
    task = task_id or uuid4()

    if on is not None and follow:
        raise Usage("--follow shows the output of one task: use --wait with --on, and chiffon logs with a task's id")

    async def work(client: Client) -> int:
        accepted = await client.dispatch(
            work_type,
            parameters,
            priority=priority,
            agent_type=agent_type,
            agent_id=None if agent is None else await find_agent(client, agent),
            required=collect_pairs(require or ()),
            preferred=collect_pairs(prefer or ()),
            task_id=task,
            request_id=request_id,
            idempotent=idempotent,
            max_attempts=max_attempts,
            ordering_key=ordering_key,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
            expires_after=None if expires_after is None else timedelta(seconds=expires_after),
            approval_id=approval,
            name=name,
            labels=collect_texts(label or ()),
            on=None if on is None else parse_on(on),
            batch=None if batch is None else parse_batch(batch),
            stop_after_failures=stop_after,
        )
        if on is not None:
            if not wait:
                print_accepted(accepted, as_json=target.is_json)
                return Exit.OK
            say_skipped(accepted)
            return await wait_for_fan_out(client, task, as_json=target.is_json)
        if accepted.status is Status.AWAITING_APPROVAL:
            say(f"It waits for people to approve it: chiffon approvals show {accepted.approval_id}")
        if follow:
            say(f"Dispatched task {task}.")
            return await follow_task(client, task, as_json=target.is_json, raw=raw)
        if wait:
            status = await wait_for_task(client, task, as_json=target.is_json)
            print_task(status, as_json=target.is_json, raw=raw)
            return exit_of_work(status.status, status.error_code)
        if target.is_json:
            print_json(accepted)
        else:
            say("Dispatched. To see what it writes: chiffon logs -f with this id:")
            put(str(task))
        return Exit.OK

    resume = f"chiffon status --wait {task}" if on is not None else f"chiffon logs -f {task}"
    return target.run(work, resume=resume if wait or follow else "")
