"""Store of the records: SQLAlchemy Core on SQLite or PostgreSQL, fenced by the lease's epoch."""
