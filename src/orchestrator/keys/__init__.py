"""Keys: which tasks run one after another, and how many of a kind at a time."""
