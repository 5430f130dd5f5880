"""Tasks: what callers dispatched, and where each stands."""
