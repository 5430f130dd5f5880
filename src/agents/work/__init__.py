"""From credit to result: slots, intake, running, leases, and handing results over."""
