"""Postal codes as rules and tariffs name them."""


def matches(postal_code: str, pattern: str) -> bool:
    """Tell whether a postal code is named by a pattern: itself, `123*`, or `12000-12999` of codes of one length."""
    if pattern.endswith("*"):
        return postal_code.startswith(pattern[:-1])
    first, dash, last = pattern.partition("-")
    if dash and len(first) == len(last) == len(postal_code):
        return first <= postal_code <= last
    return postal_code == pattern
