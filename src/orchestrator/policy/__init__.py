"""The policy that is in force: no task is stored without its ruling."""
