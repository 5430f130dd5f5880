"""The models of the REST API that the orchestrator answers with and the Python client reads."""
