"""Dispatch: how new work enters the ledger, and goes at once to an agent that has credit for it."""
