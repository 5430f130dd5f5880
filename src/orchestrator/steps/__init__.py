"""Steps: what a host does by itself within one task, as its agent reports it."""
