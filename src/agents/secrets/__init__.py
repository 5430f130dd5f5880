"""Secrets that stay on this host: those of the agent itself, and those that work refers to by name."""
