"""The orchestrator's signing keys, which never leave their directory, and what it signs with them."""
