"""Runs: plans whose steps are tasks."""
