"""Who this agent is, and what it proves that with."""
