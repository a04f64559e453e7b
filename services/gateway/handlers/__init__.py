"""What the gateway does with a request once it is understood: prove who asks, carry it out once, answer."""
