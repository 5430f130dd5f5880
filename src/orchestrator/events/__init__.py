"""Events: what happened, when, and by whom. The audit log and the live feed are these rows."""
