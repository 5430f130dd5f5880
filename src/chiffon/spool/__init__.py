"""Work from files: what is dropped into a directory is dispatched, and its results are written beside it."""
