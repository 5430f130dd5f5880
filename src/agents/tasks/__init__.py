"""Tasks from credit to result: slots, intake, running, leases, and the handover of results."""
