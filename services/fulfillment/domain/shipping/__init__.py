"""Shipping: what travels together, what it costs, where it is, and what became of its label."""
