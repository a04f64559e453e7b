"""Every SQL statement of webhooks, by noun."""
