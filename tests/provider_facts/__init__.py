"""What our code relies on of each provider, with its source; each fact is checked against the adapter and against the simulation.

The source is never our own picture: a page of the documentation, a type of the provider's library, a recorded answer, a changelog's entry.
"""
