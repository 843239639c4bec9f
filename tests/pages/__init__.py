"""The status pages: what they say, and how they behave in a real browser."""
