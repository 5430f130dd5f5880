"""The audit log: whether the events are what was written, checkpoints outside the database, and who did what."""
