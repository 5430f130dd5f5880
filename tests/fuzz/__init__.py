"""What nobody should send: to the REST API, to the WebSockets and to the queues."""
