"""Output: what tasks wrote, in numbered pieces."""
