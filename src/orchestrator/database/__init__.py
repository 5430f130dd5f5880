"""The connection to the ledger and the history of its schema."""
