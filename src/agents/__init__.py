"""The agent: one process per host that claims work, runs it through executors, and reports."""
