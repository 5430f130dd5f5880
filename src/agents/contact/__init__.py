"""Heartbeats of the agent, orders of the orchestrator, and a watch for silence between the two."""
