"""The rules of fulfillment, pure: no await, no clock, no I/O."""
