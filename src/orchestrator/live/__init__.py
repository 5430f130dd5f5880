"""Live updates: a feed that follows the ledger, a hub that fans out, and the WebSockets that readers open."""
