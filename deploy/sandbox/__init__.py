"""The sandbox provider: a payment provider of our own, over HTTP, that hangs, lies and repeats itself on request."""
