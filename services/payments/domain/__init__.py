"""The rules of payments, pure: no await, no clock, no I/O."""
