"""The rules of the project, executed."""
