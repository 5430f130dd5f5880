"""Messages of the agent, as they leave and as they come in."""
