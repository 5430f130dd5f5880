"""The version of this program: the only place that says it; `pyproject.toml` reads it here."""

VERSION = "0.1.0"
