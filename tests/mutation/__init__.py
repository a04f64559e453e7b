"""Mistakes made on purpose, one at a time, and whether a test notices."""
