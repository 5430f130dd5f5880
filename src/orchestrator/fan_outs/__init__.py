"""Fan-outs: the same work on each of several agents, a batch at a time, as one thing with one result."""
