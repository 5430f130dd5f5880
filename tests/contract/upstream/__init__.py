"""The contract of upstream's agent queue, tried against this service."""
