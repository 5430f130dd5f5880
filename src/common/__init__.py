"""What the orchestrator and the agents must agree on: messages, states, errors, settings, and the broker contract."""
