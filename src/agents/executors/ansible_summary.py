"""A callback plugin that Ansible runs: it writes what became of each host into a file, at the end of the playbooks.

The executor puts a copy of this file beside the work, so it imports nothing of this package.
"""

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.callback import CallbackBase

FILE = "CHIFFON_SUMMARY_FILE"


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "chiffon_summary"

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """Write the summary as a whole or not at all."""
        summary = {}
        for host in sorted(stats.processed):
            counts = dict(stats.summarize(host))
            summary[host] = {"failed": counts.pop("failures"), **counts}
        path = Path(os.environ[FILE])
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(summary), encoding="utf-8")
        draft.replace(path)
