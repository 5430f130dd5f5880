"""`chiffon logs`: print what a task wrote."""

from typing import Annotated
from uuid import UUID

from cyclopts import Parameter

from chiffon.cli.console import print_json
from chiffon.cli.follow import follow_task, print_output
from chiffon.cli.options import HERE, Flag, Target
from chiffon.cli.outcome import Exit
from chiffon.cli.streams import is_read
from chiffon.client import Client
from chiffon.output import read_output
from common.messages import Stream


def logs(
    task_id: UUID,
    /,
    *,
    follow: Annotated[bool, Parameter(name=["--follow", "-f"], negative=())] = False,
    stream: Stream | None = None,
    raw: Annotated[bool, Flag] = False,
    target: Target = HERE,
) -> int:
    """Print what a task wrote, from the start.

    ```
    chiffon logs 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60
    chiffon logs -f 0b8f5a0e-6d0c-4c5e-9a0b-5f3c1d2e4f60 > out.txt 2> err.txt
    ```

    The task's standard output goes to standard output, its standard error to standard error, in the order in which it
    wrote them. With -f it stays until the task ends, and the outcome is the exit status, as for `chiffon dispatch`.
    At a terminal the last line shows where the task stands.

    On a terminal colours are left out, and control, bidirectional and zero-width characters are written out as \\u….
    A file or a pipe gets every character as the task wrote it.

    Parameters
    ----------
    task_id
        The id that `chiffon dispatch` printed.
    follow
        Stay until the task ends, and print what it writes as it comes.
    stream
        Only one of the two streams.
    raw
        Print it as it is, with control sequences, also on a terminal.
    """

    async def work(client: Client) -> int:
        if follow:
            return await follow_task(client, task_id, as_json=target.is_json, raw=raw, stream=stream)
        if target.is_json:
            async for piece in read_output(client, task_id, stream=stream):
                dropped = {"dropped": piece.dropped} if piece.dropped else {}
                print_json({"attempt": piece.attempt, "stream": piece.stream, "text": piece.text} | dropped)
                if not is_read():
                    break
        else:
            await print_output(client, task_id, follow=False, raw=raw, stream=stream)
        return Exit.OK

    return target.run(work, resume=f"chiffon logs -f {task_id}" if follow else "")
