"""An operator's hand on a running system: its API, called with a staff key, and what it says as tables."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

import httpx

from shared.errors import Clear

TIMEOUT_SECONDS = 60.0


class Refused(Clear):
    """The system said no, or is not there; the text says why."""


class Api:
    """The API of a system, for one store and environment."""

    def __init__(self, url: str, key: str, *, store: str | None = None) -> None:
        headers = {"Authorization": f"Bearer {key}", **({"Tender-Store": store} if store else {})}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """Read something."""
        given = {name: str(value) for name, value in query.items() if value is not None}
        return self._answer("GET", path, params=given)

    def send(self, method: str, path: str, body: Any) -> Any:
        """Have something done, once."""
        return self._answer(method, path, json=body, headers={"Idempotency-Key": uuid4().hex})

    def any(self, method: str, path: str, content: bytes | None) -> tuple[int, str]:
        """Make a request of whatever kind; gives its status and text."""
        headers = {"Idempotency-Key": uuid4().hex, "Content-Type": "application/json"}
        try:
            answer = self._http.request(method, path, content=content, headers=headers)
        except httpx.HTTPError as silent:
            raise Refused(f"{self._http.base_url} does not answer: {silent}") from silent
        return answer.status_code, answer.text

    def _answer(self, method: str, path: str, **how: Any) -> Any:
        try:
            answer = self._http.request(method, f"/api/v1/admin/{path}", **how)
        except httpx.HTTPError as silent:
            raise Refused(f"{self._http.base_url} does not answer: {silent}") from silent
        if answer.status_code >= 400:
            problem: Mapping[str, Any] = answer.json() if "json" in answer.headers.get("content-type", "") else {}
            raise Refused(f"{answer.status_code} {problem.get('code', '')}: {problem.get('detail', answer.text[:200])}")
        return answer.json()


def table(rows: Sequence[Mapping[str, Any]], *columns: str) -> str:
    """Lay rows out by some of their fields, each as wide as it needs; nothing is cut off."""
    cells = [list(columns), *([("" if row.get(column) is None else str(row[column])) for column in columns] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells)
