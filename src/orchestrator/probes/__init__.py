"""Probes: proof that what is sent through the broker really comes back, not only that a connection is open."""
