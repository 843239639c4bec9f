"""The status pages: their contents, and their behaviour in a real browser."""
