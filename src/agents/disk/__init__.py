"""What the agent keeps on its disk: the journal of attempts, and the spool of results until they are stored."""
