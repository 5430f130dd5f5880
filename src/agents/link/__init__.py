"""How messages leave this agent and come in."""
