"""Where two JSON values differ, as people read it."""

from collections.abc import Iterator
from typing import Any

from shared.contracts.dead_letters import Change


def changes(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Tell every place in which two values differ, by its path; lists of different lengths differ as a whole."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            yield from changes(before.get(key), after.get(key), f"{path}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for n, (was, now) in enumerate(zip(before, after, strict=True)):
            yield from changes(was, now, f"{path}/{n}")
    elif before != after:
        yield Change(path=path or "/", before=before, after=after)
