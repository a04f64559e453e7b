"""Every SQL statement of the reconciler, one typed function each."""
