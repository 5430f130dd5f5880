"""The work types that this orchestrator knows: built in, routed, or announced by agents."""
