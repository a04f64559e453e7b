"""How Tender is set up and run: the command line, the local stack, and the sandbox provider."""
