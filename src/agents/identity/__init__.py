"""The identity of the agent, its credential, and the secrets that it needs itself."""
