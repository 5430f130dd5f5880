"""Checks before work runs on this host: trusted keys, signatures of grants, and the one way to an executor."""
