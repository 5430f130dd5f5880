"""Jobs: tasks as the queue API shows them, for workers that speak HTTP."""
