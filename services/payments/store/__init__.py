"""Every SQL statement of payments, one typed function each."""
