"""Package indexes: the proxy that builds use, pages of projects, and network limits."""
