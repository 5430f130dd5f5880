"""Repairs of compose services, in the middle of which processes are killed."""
