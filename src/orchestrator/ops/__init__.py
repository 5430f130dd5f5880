"""A look at the whole: what waits, who runs what, and what came of the last."""
