"""One attempt at a task: which ones this agent owns, the order to stop one, and its workspace."""
