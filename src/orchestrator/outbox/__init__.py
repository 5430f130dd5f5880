"""The outbox: what must be published, written with the change that makes it so."""
