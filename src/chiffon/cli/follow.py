"""Stay with a task until it ends: print what it writes, show where it stands, and turn its end into an exit status."""

from contextlib import aclosing

from chiffon.cli.console import is_terminal, print_json, put_output, say
from chiffon.cli.outcome import exit_of_work
from chiffon.cli.progress_line import ProgressLine
from chiffon.cli.show import describe_end
from chiffon.cli.streams import is_read
from chiffon.client import AnyId, Client
from chiffon.output import read_output, watch_to_the_end
from common.messages import Stream
from common.rest.tasks import TaskStatus


async def wait_for_task(client: Client, task_id: AnyId, *, as_json: bool) -> TaskStatus:
    """Return a task when it has ended; meanwhile show where it stands."""
    with ProgressLine(else_lines=not as_json) as line:
        return await client.wait(task_id, progress=line.show)


async def follow_task(client: Client, task_id: AnyId, *, as_json: bool, raw: bool, stream: Stream | None = None) -> int:
    """Print the output as it comes, or all events as JSON lines; return the exit status for the outcome."""
    if as_json:
        async with aclosing(watch_to_the_end(client, task_id)) as events:
            async for event in events:
                print_json(event)
    else:
        await print_output(client, task_id, follow=True, raw=raw, stream=stream)
    # Also for a task that ended before: the events tell, but the status is the truth.
    task = await client.wait(task_id)
    say(f"Task {task_id}: {describe_end(task)}")
    return exit_of_work(task.status, task.error_code)


async def print_output(
    client: Client, task_id: AnyId, *, follow: bool, raw: bool, stream: Stream | None = None
) -> None:
    """Print a task's standard output to ours and its standard error to ours, in the order in which they came."""
    with ProgressLine() as line:
        reading = read_output(client, task_id, follow=follow, stream=stream, progress=line.show if follow else _ignore)
        async with aclosing(reading) as pieces:
            async for piece in pieces:
                with line.aside(piece.text, on_terminal=is_terminal(piece.stream)):
                    put_output(piece.text, piece.stream, raw=raw)
                    if piece.dropped:
                        what = f"The last {piece.dropped} bytes of {piece.stream}"
                        say(f"{what} were not kept: they are beyond the limit.")
                if not follow and not is_read():
                    return


def _ignore(_report: str) -> None:
    pass
