"""The registry: which agents there are, and how they are."""
