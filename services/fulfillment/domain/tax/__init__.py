"""Tax: which rules apply, what they come to, exactly, and how it is rounded so that everything adds up."""
