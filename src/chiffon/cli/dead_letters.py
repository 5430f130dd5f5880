"""`chiffon dead-letters`: what nobody could deal with, and what becomes of it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from cyclopts import App

from chiffon.cli.console import print_json, say
from chiffon.cli.options import HERE, Target
from chiffon.cli.outcome import Exit, Usage, exit_of_answer
from chiffon.cli.show import print_dead_letter, print_dead_letters
from chiffon.client import Client
from common.rest.dead_letters import MOST_SETTLED, Settled

app = App(
    name="dead-letters",
    group_commands="Commands",
    help="List what nobody could deal with, look at it, replay or discard it.",
    result_action="return_value",
)


@app.command(name="list")
def list_(
    *,
    state: Literal["waiting", "replayed", "discarded", "all"] = "waiting",
    kind: Literal["message", "task"] | None = None,
    limit: int = 50,
    cursor: str | None = None,
    target: Target = HERE,
) -> int:
    """List dead letters, newest first.

    ```
    chiffon dead-letters list
    chiffon dead-letters list --state all --kind task -o json
    ```

    Parameters
    ----------
    state
        Only those that wait for somebody, or were settled so.
    kind
        Only messages, or only tasks.
    limit
        At most this many.
    cursor
        Go on where an earlier list ended.
    """

    async def work(client: Client) -> int:
        wanted = None if state == "all" else state
        page = await client.dead_letters(state=wanted, kind=kind, limit=limit, cursor=cursor)
        if target.is_json:
            print_json(page)
            return Exit.OK
        print_dead_letters(page.items)
        if page.next_cursor:
            say(f"There are more: --cursor {page.next_cursor}")
        return Exit.OK

    return target.run(work)


@app.command
def show(letter: int, /, *, target: Target = HERE) -> int:
    """Show a dead letter with its body.

    ```
    chiffon dead-letters show 17
    ```

    Parameters
    ----------
    letter
        The number of the dead letter.
    """

    async def work(client: Client) -> int:
        found = await client.dead_letter(letter)
        if target.is_json:
            print_json(found)
        else:
            print_dead_letter(found)
        return Exit.OK

    return target.run(work)


@app.command
def replay(*letters: int, target: Target = HERE) -> int:
    """Try dead letters again.

    ```
    chiffon dead-letters replay 17 18
    ```

    A message goes back into the queue that it came from; a task is dispatched once more as a new one, which is named.

    Parameters
    ----------
    letters
        The numbers of the dead letters, at most 100.
    """

    async def settle(client: Client) -> list[Settled]:
        return await client.replay_dead_letters(letters)

    return _settle(letters, settle, "Replayed", target)


@app.command
def discard(*letters: int, target: Target = HERE) -> int:
    """Say that nothing more is to be done about dead letters.

    ```
    chiffon dead-letters discard 17 18
    ```

    Parameters
    ----------
    letters
        The numbers of the dead letters, at most 100.
    """

    async def settle(client: Client) -> list[Settled]:
        return await client.discard_dead_letters(letters)

    return _settle(letters, settle, "Discarded", target)


def _settle(
    letters: Sequence[int], settle: Callable[[Client], Awaitable[list[Settled]]], done: str, target: Target
) -> int:
    """Settle all and say of each what became of it; the exit status is that of the first that was refused."""
    if not 1 <= len(letters) <= MOST_SETTLED:
        raise Usage(f"name 1 to {MOST_SETTLED} dead letters")

    async def work(client: Client) -> int:
        results = await settle(client)
        if target.is_json:
            print_json(results)
        for result in results:
            if result.error is not None:
                say(f"chiffon: {result.error.error_message}")
            elif result.dead_letter is not None and not target.is_json:
                task = "" if result.dead_letter.replayed_as is None else f" as task {result.dead_letter.replayed_as}"
                say(f"{done} dead letter {result.id}{task}.")
        refused = next((result.error for result in results if result.error is not None), None)
        return Exit.OK if refused is None else exit_of_answer(refused.status, refused.error_code)

    return target.run(work)
