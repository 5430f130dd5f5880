"""`chiffon approvals`: what waits for people, and their yes or no."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Annotated, Literal
from uuid import UUID

from cyclopts import App, Parameter

from chiffon.cli.agents import find_agent
from chiffon.cli.console import print_fields, print_json, print_table, put, say
from chiffon.cli.options import HERE, Flag, Target, TextSource
from chiffon.cli.outcome import Exit
from chiffon.cli.parameters import collect_pairs, collect_parameters
from chiffon.client import NORMAL_PRIORITY, Client, hints_of
from common.rest.approvals import Approval, ApprovalDetail, Vote
from common.visible import visible

State = Literal["waiting", "approved", "used", "rejected", "expired", "cancelled", "all"]

app = App(
    name="approvals",
    group_commands="Commands",
    help="List what waits for people, look at exactly what would run, approve or reject it.",
    result_action="return_value",
)


@app.command(name="list")
def list_(
    *,
    state: State = "waiting",
    task: UUID | None = None,
    limit: int = 50,
    cursor: str | None = None,
    target: Target = HERE,
) -> int:
    """List approvals, newest first.

    ```
    chiffon approvals list
    chiffon approvals list --state all -o json
    ```

    Parameters
    ----------
    state
        Only those that stand so.
    task
        Only that of this task.
    limit
        At most this many.
    cursor
        Go on where an earlier list ended.
    """

    async def work(client: Client) -> int:
        page = await client.approvals(state=None if state == "all" else state, task_id=task, limit=limit, cursor=cursor)
        if target.is_json:
            print_json(page)
            return Exit.OK
        _print_list(page.items)
        if page.next_cursor:
            say(f"There are more: --cursor {page.next_cursor}")
        return Exit.OK

    return target.run(work)


@app.command
def show(approval: UUID, /, *, target: Target = HERE) -> int:
    """Show an approval: exactly what would run, and what people said.

    ```
    chiffon approvals show 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    ```

    Every character beyond ASCII is written out as \\u…, so that nothing is hidden and no letter looks like another.

    Parameters
    ----------
    approval
        The id of the approval.
    """

    async def look(client: Client) -> ApprovalDetail:
        return await client.approval(approval)

    return _run(look, target, show_work=True)


@app.command
def approve(approval: UUID, /, *, comment: str = "", target: Target = HERE) -> int:
    """Say yes to exactly this content.

    ```
    chiffon approvals approve 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 --comment "looks right"
    ```

    Parameters
    ----------
    approval
        The id of the approval.
    comment
        What to say with it.
    """

    async def answer(client: Client) -> ApprovalDetail:
        return await client.approve(approval, comment=comment)

    return _run(answer, target)


@app.command
def reject(approval: UUID, /, *, reason: str, target: Target = HERE) -> int:
    """Say no: it is decided, and the task that waits is cancelled.

    ```
    chiffon approvals reject 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 --reason "wrong host"
    ```

    Parameters
    ----------
    approval
        The id of the approval.
    reason
        Why not; the task keeps it.
    """

    async def answer(client: Client) -> ApprovalDetail:
        return await client.reject(approval, reason=reason)

    return _run(answer, target)


@app.command
def comment(approval: UUID, text: str, /, *, target: Target = HERE) -> int:
    """Add a remark to an approval that waits.

    ```
    chiffon approvals comment 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 "which host is this?"
    ```

    Parameters
    ----------
    approval
        The id of the approval.
    text
        What to say.
    """

    async def answer(client: Client) -> ApprovalDetail:
        return await client.comment(approval, text)

    return _run(answer, target)


@app.command
def ask(
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
    idempotent: Annotated[bool, Flag] = False,
    max_attempts: int | None = None,
    max_duration: float | None = None,
    ordering_key: str | None = None,
    concurrency_key: str | None = None,
    concurrency_limit: int | None = None,
    expires_after: float | None = None,
    note: str = "",
    target: Target = HERE,
) -> int:
    """Ask for an approval of work without dispatching it.

    ```
    chiffon approvals ask shell_script --note "new kernel" -- reboot
    chiffon approvals ask shell_script --max-attempts 3 --expires-after 600 -- ./deploy.sh
    ```

    Prints the id of the approval. Once it is approved: chiffon dispatch shell_script --approval ID -- reboot, with the
    same options as here. What is not the same is refused, and so is a dispatch by anybody else.

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
    idempotent
        The work may be started again when an agent is lost.
    max_attempts
        Start it at most this often; by default once, or 3 times with --idempotent.
    max_duration
        Stop it after this many seconds.
    ordering_key
        Start it when everything dispatched before it with this key has ended.
    concurrency_key
        Share a limit with all tasks of this key; needs --concurrency-limit.
    concurrency_limit
        At most so many tasks of the concurrency key run at a time.
    expires_after
        Cancel it if it still waits so many seconds after its dispatch.
    note
        Why, for those who are asked.
    """
    parameters = collect_parameters(
        work_type, pairs=param or (), params_file=params_file, script=script, argv=argv, max_duration=max_duration
    )

    async def work(client: Client) -> int:
        asked = await client.ask(
            work_type,
            parameters,
            hints=hints_of(
                agent_type=agent_type,
                agent_id=None if agent is None else await find_agent(client, agent),
                required=collect_pairs(require or ()),
                preferred=collect_pairs(prefer or ()),
            ),
            priority=priority,
            idempotent=idempotent,
            max_attempts=max_attempts,
            ordering_key=ordering_key,
            concurrency_key=concurrency_key,
            concurrency_limit=concurrency_limit,
            expires_after=None if expires_after is None else timedelta(seconds=expires_after),
            note=note,
        )
        if target.is_json:
            print_json(asked)
        else:
            say("Asked. Once it is approved, dispatch the same with --approval and this id:")
            put(str(asked.approval_id))
        return Exit.OK

    return target.run(work)


def _run(get: Callable[[Client], Awaitable[ApprovalDetail]], target: Target, *, show_work: bool = False) -> int:
    async def work(client: Client) -> int:
        found = await get(client)
        if target.is_json:
            print_json(found)
        elif show_work:
            _print(found)
        else:
            say(f"{found.state}: {found.yes} of {found.approvers} said yes.")
        return Exit.OK

    return target.run(work)


def _print_list(approvals: Sequence[Approval]) -> None:
    print_table(
        ("APPROVAL", "STATE", "YES", "STARTS", "WORK", "TARGET", "RULE", "BY", "UNTIL"),
        (
            (
                one.approval_id,
                one.state,
                f"{one.yes}/{one.approvers}",
                one.max_attempts,
                one.work_type,
                one.target,
                visible(one.rule),
                visible(one.requested_by),
                one.expires_at if one.valid_until is None else one.valid_until,
            )
            for one in approvals
        ),
    )


def _print(found: ApprovalDetail) -> None:
    print_fields(
        (
            ("approval", found.approval_id),
            ("state", found.state),
            ("task", found.task_id),
            ("asked by", visible(found.requested_by)),
            ("note", visible(found.note)),
            ("needs", f"{found.approvers} with the role {' or '.join(found.roles)}; {found.yes} said yes"),
            ("rule", f"{visible(found.rule)} of policy {found.policy_version}, effect {found.effect}"),
            ("asked at", found.created_at),
            ("waits until", found.expires_at),
            ("holds until", found.valid_until),
            ("reason", None if found.reason is None else visible(found.reason)),
            ("may start", "once" if found.max_attempts == 1 else f"{found.max_attempts} times"),
            ("digest", found.digest),
            ("approved", found.approved_digest),
        )
    )
    for vote in found.votes:
        put(f"{'yes' if vote.yes else 'no'}  {visible(vote.name)}  {_token(vote)}  {visible(vote.comment)}".rstrip())
    for remark in found.comments:
        put(f"{visible(remark.name)}: {visible(remark.text)}")
    put("", "This is what runs:", *found.shown.split("\n"))


def _token(vote: Vote) -> str:
    if vote.token_id is None or vote.token_age_seconds is None:
        return "(token not recorded)"
    age = timedelta(seconds=round(vote.token_age_seconds))
    return f"(token {vote.token_id}, made by {visible(vote.token_created_by or '?')}, owned for {age})"
