"""Artifacts: the files that tasks keep, and those that people upload for them."""
