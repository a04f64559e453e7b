"""Webhooks: what providers tell us, verified and kept before anything is done about it, and handed to whom it concerns."""
