"""The records: SQLAlchemy Core on SQLite or PostgreSQL, compare-and-swap under an epoch."""
