"""Mistakes in SQL: a condition of a WHERE that no longer counts, a border on the other side."""

import re
from collections.abc import Iterator

STATEMENT = re.compile(r"\b(SELECT|UPDATE|DELETE|INSERT|WHERE|JOIN)\b")
BEGINS = re.compile(r"\b(WHERE|AND|HAVING)\b\s+")
ENDS = re.compile(
    r"\b(AND|OR|ORDER|GROUP|LIMIT|RETURNING|FOR|ON|UNION|WHERE|HAVING|WINDOW|SET|DO|LEFT|JOIN|EXCEPT|OFFSET|THEN|WHEN|ELSE|END)\b|;"
)
QUOTES = re.compile(r"[a-zA-Z]*(\"\"\"|'''|\"|')")
BORDERS = {" <= ": " < ", " < ": " <= ", " >= ": " > ", " > ": " >= "}
PAIRS = re.compile(r"\(([\w.]+(?:, [\w.]+)+)\)(\s*=\s*|\s+IS NOT DISTINCT FROM\s+)\(([\w.$:]+(?:, [\w.$:]+)+)\)")


def mistakes(text: str) -> Iterator[tuple[str, int, int, str]]:
    """Find mistakes in the source text of a string: their kind, from where to where, and what is written instead.

    A condition that is dropped stays written down with OR true, or Postgres would miss the type of its parameter.
    """
    if not STATEMENT.search(text):
        return
    opened = QUOTES.match(text)
    assert opened is not None, "a string begins with its quotes"
    for first, last in _conditions(text[: -len(opened[1])]):
        yield "a condition of SQL dropped", first, last, f"({text[first:last]} OR true)"
        for pair in PAIRS.finditer(text, first, last):
            yield from _parts_of_pair(pair)
        for border, other in BORDERS.items():
            for found in re.finditer(re.escape(border), text[first:last]):
                yield "a border of SQL moved", first + found.start(), first + found.end(), other


def _conditions(text: str) -> Iterator[tuple[int, int]]:
    for begin in BEGINS.finditer(text):
        between = re.search(r"\bBETWEEN\b\s+\S+\s+$", text[: begin.start()])
        last = _end_of(text, begin.end())
        condition = text[begin.end() : last].rstrip()
        if condition and not between and not condition.startswith(("(SELECT", "EXISTS {")):
            yield begin.end(), begin.end() + len(condition)


def _end_of(text: str, first: int) -> int:
    """Find where a condition ends: at the next word that is none of it, outside of its brackets."""
    depth, at = 0, first
    while at < len(text):
        if text[at] in "([{":
            depth += 1
        elif text[at] in ")]}":
            depth -= 1
            if depth < 0:
                return at
        elif depth == 0:
            if (between := re.compile(r"BETWEEN\s+\S+\s+AND\s+").match(text, at)) is not None:
                at = between.end()
                continue
            if (at == 0 or not text[at - 1].isalnum()) and ENDS.match(text, at) and not text.startswith("FROM", at):
                return at
        at += 1
    return at


def _parts_of_pair(pair: re.Match[str]) -> Iterator[tuple[str, int, int, str]]:
    """Of `(a, b) = (x, y)`, drop one part at a time."""
    ours, theirs = pair[1].split(", "), pair[3].split(", ")
    if len(ours) != len(theirs):
        return
    operator = pair[2].strip()
    for dropped in range(len(ours)):
        equal = [f"{a} {operator} {b}" for a, b in zip(ours, theirs, strict=True)]
        equal[dropped] = f"({equal[dropped]} OR true)"
        yield "a condition of SQL dropped", pair.start(), pair.end(), f"({' AND '.join(equal)})"
