"""The edges of a running orchestrator: what it takes, and how it refuses the rest."""
