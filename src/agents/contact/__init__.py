"""What the agent and the orchestrator say besides work: heartbeats, orders, and whether anything comes back."""
