"""The control plane: takes work over REST, keeps the truth in PostgreSQL, hands it to agents. It executes nothing."""
