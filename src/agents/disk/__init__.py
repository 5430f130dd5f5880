"""Files of the agent: the journal of attempts, and the spool of results until the ledger has them."""
