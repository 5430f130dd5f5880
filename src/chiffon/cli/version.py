"""`chiffon version`: print the version."""

import platform

from chiffon import __version__
from chiffon.cli.console import print_json, put
from chiffon.cli.options import AS_TABLE, Printing
from chiffon.cli.outcome import Exit


def version(*, printing: Printing = AS_TABLE) -> int:
    """Print the version.

    ```
    chiffon version -o json
    ```
    """
    if printing.is_json:
        print_json({"chiffon": __version__, "python": platform.python_version()})
    else:
        put(f"chiffon {__version__}, Python {platform.python_version()}")
    return Exit.OK
