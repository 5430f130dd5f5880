"""What a task writes, and how far it is, on the way to the orchestrator."""
