"""The outbox: orders to agents, kept in the ledger until the broker has them."""
