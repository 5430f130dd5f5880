"""Attempts that this agent owns: the order to stop one, and its workspace."""
