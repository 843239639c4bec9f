"""Alembic's migrations; run by `Store.migrate`."""
