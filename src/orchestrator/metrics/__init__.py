"""Metrics of runs for StatsD: what is counted and timed when something happens, and who sends it."""
