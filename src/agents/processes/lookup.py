"""Find programs in the agent's own `PATH`.

Work has no say in that, whatever `PATH` it gives its program: a name was ruled on, and means what the host says. A
folder that is not absolute is left out, because programs start in folders of the work.
"""

import os
from pathlib import Path


def paths_of(program: str) -> list[str]:
    """Return the files that a program may be, in their order: a name without a slash is looked up."""
    if "/" in program:
        return [program]
    return [f"{folder}/{program}" for folder in os.get_exec_path() if folder.startswith("/")]


def find(program: str) -> str | None:
    """Return the first of the files that a program may be that can be run; None when there is none."""
    return next((path for path in paths_of(program) if Path(path).is_file() and os.access(path, os.X_OK)), None)
