"""What the sandbox tells of its books: signed webhooks that can be lost, late, doubled and out of order, on request."""

import asyncio
import base64
import hashlib
import hmac
import random
import time
from typing import Any, Protocol

import aiohttp
import msgspec

from shared.ids import new_id
from shared.stopping import stop

TIMEOUT_SECONDS = 5.0
# After a failed delivery; then the sandbox gives up, and it can be asked to send again.
RETRY_SECONDS = (0.2, 1.0, 2.0, 5.0, 10.0, 30.0)
EVENTS_KEPT_MAX = 100_000


class Moods(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How likely each misfortune is, and how late late is."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_seconds: float = 0.5
    # Each waits a random while of at most so long, so that they overtake each other.
    shuffled_seconds: float = 0.0


class Told(msgspec.Struct, kw_only=True):
    """An event that was made, and what became of its deliveries."""

    id: str
    type: str
    body: bytes
    deliveries: int = 0
    accepted: bool = False
    last: str = ""


class Style(Protocol):
    """How one provider writes and signs its events."""

    def event(self, event_id: str, kind: str, data: Any, at: str) -> bytes:
        """Write an event."""
        ...

    def headers(self, told: Told, secret: str) -> dict[str, str]:
        """Sign an event as of now."""
        ...


class StandardWebhooks:
    """The sandbox's own style (github.com/standard-webhooks/standard-webhooks)."""

    def event(self, event_id: str, kind: str, data: Any, at: str) -> bytes:
        """Write an event."""
        return msgspec.json.encode({"id": event_id, "type": kind, "created_at": at, "data": data})

    def headers(self, told: Told, secret: str) -> dict[str, str]:
        """Sign an event as of now."""
        timestamp = str(int(time.time()))
        key = base64.b64decode(secret.removeprefix("whsec_"))
        mac = hmac.new(key, f"{told.id}.{timestamp}.".encode() + told.body, hashlib.sha256).digest()
        return {
            "Content-Type": "application/json",
            "webhook-id": told.id,
            "webhook-timestamp": timestamp,
            "webhook-signature": f"v1,{base64.b64encode(mac).decode()}",
        }


class Outgoing:
    """Sends signed webhooks to one address; nothing where none is given."""

    def __init__(self, *, url: str, secret: str, style: Style | None = None) -> None:
        self.url = url
        self.secret = secret
        self.style = style or StandardWebhooks()
        self.moods = Moods()
        self.events: dict[str, Told] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    def tell(self, kind: str, snapshot: Any, at: str) -> None:
        """Make an event of what just happened, and send it as the moods have it."""
        if not self.url:
            return
        event_id = f"evt_{new_id().hex}"
        body = self.style.event(event_id, kind, snapshot, at)
        if len(self.events) >= EVENTS_KEPT_MAX:
            self.events.pop(next(iter(self.events)))
        self.events[event_id] = told = Told(id=event_id, type=kind, body=body)
        if random.random() < self.moods.lost:
            return
        for _ in range(2 if random.random() < self.moods.doubled else 1):
            pause = random.uniform(0, self.moods.shuffled_seconds)
            if random.random() < self.moods.late:
                pause += self.moods.late_seconds
            self.send(told, pause_seconds=pause)

    def send(self, told: Told, *, pause_seconds: float = 0.0) -> None:
        """Deliver an event, and again for a while until it is accepted."""
        task = asyncio.create_task(self._deliver(told, pause_seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, told: Told, pause_seconds: float) -> None:
        for pause in (pause_seconds, *RETRY_SECONDS):
            if pause:
                await asyncio.sleep(pause)
            if await self._post(told):
                return

    async def _post(self, told: Told) -> bool:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS))
        told.deliveries += 1
        try:
            async with self._session.post(self.url, data=told.body, headers=self.headers(told)) as answer:
                told.last = str(answer.status)
                told.accepted = told.accepted or answer.ok
                return answer.ok
        except (aiohttp.ClientError, TimeoutError, OSError) as failed:
            told.last = type(failed).__name__
            return False

    def headers(self, told: Told) -> dict[str, str]:
        """Sign an event as of now."""
        return self.style.headers(told, self.secret)

    async def close(self) -> None:
        """Stop sending."""
        await stop(*self._tasks)
        if self._session is not None:
            await self._session.close()
