"""Approvals on a real ledger."""
