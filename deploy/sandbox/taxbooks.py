"""The sandbox's tax office: the documents it was told of, in books of its own."""

import sqlite3
from pathlib import Path
from typing import Any

import msgspec

from deploy.sandbox.books import Refused


class Recorded(msgspec.Struct, kw_only=True):
    """A document as the office keeps it; amounts as decimal text."""

    key: str
    face: str
    kind: str
    currency: str
    amount: str
    tax: str
    day: str
    recorded_at: str
    number: int
    status: str = "Committed"
    reference: str | None = None
    # What else its provider shows of it.
    facts: dict[str, Any] = {}


class TaxOffice:
    """Every document that was recorded, also after a restart."""

    def __init__(self, file: Path | None) -> None:
        self._db = sqlite3.connect(str(file) if file else ":memory:", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE IF NOT EXISTS documents (key TEXT PRIMARY KEY, body BLOB NOT NULL)")
        self.documents: dict[str, Recorded] = {}
        for _, body in self._db.execute("SELECT key, body FROM documents ORDER BY key"):
            document = msgspec.json.decode(body, type=Recorded)
            self.documents[document.key] = document

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def keep(self, document: Recorded) -> Recorded:
        """Write a document down."""
        self.documents[document.key] = document
        self._db.execute(
            "INSERT INTO documents VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET body = excluded.body",
            (document.key, msgspec.json.encode(document)),
        )
        return document

    def get(self, key: str, *, face: str, kind: str = "") -> Recorded:
        """Find a document that was recorded through a face."""
        found = self.documents.get(key)
        if found is None or found.face != face or kind not in ("", found.kind):
            raise Refused(404, "Not Found", "Resource can not be found" if face == "taxjar" else "Transaction not found.")
        return found

    def between(self, first_day: str, last_day: str, *, face: str, kind: str = "") -> list[Recorded]:
        """List the documents of some days, in the order in which they were recorded."""
        found = [d for d in self.documents.values() if d.face == face and kind in ("", d.kind) and first_day <= d.day <= last_day]
        return sorted(found, key=lambda document: document.number)

    def forget(self, document: Recorded) -> None:
        """Strike a document out, as if it had never been."""
        del self.documents[document.key]
        self._db.execute("DELETE FROM documents WHERE key = ?", (document.key,))
