"""The history of the ledger's schema, as plain SQL run by Alembic."""
