"""Take away what a power cut takes away: everything that no `fsync` has brought to disk."""

import json
import shutil
from pathlib import Path
from urllib.parse import unquote

# Python loads the module `sitecustomize` in it at start.
RECORDER = Path(__file__).parent / "power"


def recording(disk: Path, python_path: str) -> dict[str, str]:
    """Return the environment in which a Python program notes in `disk` what it brings to disk."""
    return {"CHAOS_DISK": str(disk), "PYTHONPATH": f"{RECORDER}:{python_path}"}


def cut_power(folder: Path, disk: Path) -> None:
    """Leave of a folder what is on disk. Nobody may be using it."""
    shutil.rmtree(folder)
    folder.mkdir()
    # A folder's record has a longer name than that of the folder that it is in, so that one comes first.
    for record in sorted((disk / "names").glob("*"), key=lambda record: len(record.name)):
        path = Path(unquote(record.name))
        if not path.is_relative_to(folder) or not path.is_dir():
            continue
        for name, what in json.loads(record.read_text()).items():
            if what == "folder":
                (path / name).mkdir()
            else:
                content = disk / "content" / what
                (path / name).write_bytes(content.read_bytes() if content.exists() else b"")
