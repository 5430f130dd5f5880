"""Runs that repair compose services: the services file, the plan of a repair, and the contract `/orchestrator/runs`."""
