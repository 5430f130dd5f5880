"""The requests and answers of the REST API, each defined once.

The orchestrator's routes, the Python client and agents over HTTP use the same classes; the OpenAPI document calls each
by its class name.
"""
