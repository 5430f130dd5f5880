"""Output and progress of a task, on their way to the orchestrator."""
