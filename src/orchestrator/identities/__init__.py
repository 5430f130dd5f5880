"""People, services and agents: who they are, and what each may do."""
