"""Placement: which agents may take a task that not every agent of its pool may."""
