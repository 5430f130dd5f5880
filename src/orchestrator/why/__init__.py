"""Why a task waits: read from the ledger, decided by rules."""
