"""The faces of the sandbox: its own plain API, and the APIs of providers it stands in for."""
