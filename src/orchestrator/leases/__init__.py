"""Leases: which agent may run which task, until when, and whose result counts."""
