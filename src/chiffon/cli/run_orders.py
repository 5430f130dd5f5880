"""What people do about a run: answer what it waits for, give it up."""

from collections.abc import Awaitable, Callable
from uuid import UUID

from chiffon.cli.console import print_json, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.run_view import describe_run
from chiffon.client import Client
from common.rest.runs import RunSummary


def approve(run: UUID, /, *, approval: UUID | None = None, comment: str = "", target: Target = HERE) -> int:
    """Say yes to what a run waits for.

    ```
    chiffon approvals show 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    chiffon runs approve 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11 --comment "looks right"
    ```

    Look at it first: `chiffon runs show` names the approval, and `chiffon approvals show` prints exactly what would
    run. When the run waits for several, name one with --approval.

    Parameters
    ----------
    run
        The id of the run.
    approval
        The id of the approval; by default the only one that it waits for.
    comment
        What to say with it.
    """

    async def order(client: Client) -> RunSummary:
        return await client.approve_run(run, approval_id=approval, comment=comment)

    return _order(order, target)


def reject(run: UUID, /, *, reason: str, approval: UUID | None = None, target: Target = HERE) -> int:
    """Say no to what a run waits for: the step is cancelled, and what succeeded before it is undone.

    ```
    chiffon runs reject 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11 --reason "wrong service"
    ```

    Parameters
    ----------
    run
        The id of the run.
    reason
        Why not; the task keeps it.
    approval
        The id of the approval; by default the only one that the run waits for.
    """

    async def order(client: Client) -> RunSummary:
        return await client.reject_run(run, reason=reason, approval_id=approval)

    return _order(order, target)


def abandon(run: UUID, /, *, target: Target = HERE) -> int:
    """Give up a run whose host will never say how its repair ended.

    ```
    chiffon runs abandon 3b0f6f5e-52a4-4a0d-9a3e-0a9f2d9e6c11
    ```

    Only for a host that is gone for good: nobody knows whether its service was changed, and nothing is undone. A host
    that comes back rolls back on its own.

    Parameters
    ----------
    run
        The id of the run.
    """

    async def order(client: Client) -> RunSummary:
        return await client.abandon_run(run)

    return _order(order, target)


def _order(order: Callable[[Client], Awaitable[RunSummary]], target: Target) -> int:
    async def work(client: Client) -> int:
        found = await order(client)
        if target.is_json:
            print_json(found)
        else:
            say(f"Run {found.run_id}: {describe_run(found)}")
        return Exit.OK

    return target.run(work)
