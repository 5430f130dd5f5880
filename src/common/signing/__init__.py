"""Signatures: the orchestrator signs what may run and which keys are its own, agents check it."""
