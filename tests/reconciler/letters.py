"""Dead letters planted as they come about: messages that a service cannot handle, and what the broker gives up."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from shared import topology
from shared.bus import Letter, Publisher, headers_of
from shared.ids import new_id
from shared.messages import Envelope, Environment
from tests.world import Answer, World, until


def an_envelope(world: World, **changes: Any) -> Envelope:
    """The facts of a command as the gateway sends it."""
    facts = {
        "id": new_id(),
        "store_id": world.store_id,
        "environment": Environment.SANDBOX,
        "source": "gateway",
        "actor": "admin:tests",
        "correlation_id": f"planted-{new_id()}",
    }
    return Envelope(**{**facts, **changes})


async def send(world: World, kind: str, body: Any, envelope: Envelope) -> None:
    """Send a command that may be anything."""
    content = body if isinstance(body, bytes) else msgspec.json.encode({"type": kind, **body})
    await publish(world, topology.COMMANDS, kind, kind, content, headers_of(envelope))


async def publish(world: World, exchange: str, routing_key: str, kind: str, body: bytes, headers: Mapping[str, Any]) -> None:
    """Publish something as the broker's owner."""
    async with Publisher(world.place.amqp_url, name="tests") as publisher:
        await publisher.publish(Letter(exchange=exchange, routing_key=routing_key, type=kind, body=body, headers=dict(headers)))


async def park(world: World, service: str, kind: str, body: Any, envelope: Envelope, **headers: Any) -> None:
    """Have a message lie among a service's dead letters."""
    said = {
        "dead_reason": "Tests: planted",
        "dead_attempts": 3,
        "dead_at": datetime.now(UTC).isoformat(),
        "dead_queue": topology.lane(service),
        "dead_traceback": "",
    }
    content = body if isinstance(body, bytes) else msgspec.json.encode({"type": kind, **body})
    await publish(world, topology.parking_exchange(service), service, kind, content, {**headers_of(envelope), **said, **headers})


async def letters(world: World, **query: Any) -> list[Any]:
    """List dead letters over the API."""
    given = "&".join(f"{name}={value}" for name, value in query.items())
    answer = await world.send("GET", f"/api/v1/admin/dead-letters?{given}")
    assert answer.status == 200, answer
    return list(answer.json["letters"])


async def the_letter(world: World, message_id: UUID, status: str = "waiting") -> Any:
    """Wait until a message lies among the dead letters."""
    return (await until(lambda: letters(world, message_id=message_id, status=status)))[0]


async def show(world: World, letter_id: str) -> Any:
    """Read one with everything."""
    answer = await world.send("GET", f"/api/v1/admin/dead-letters/{letter_id}")
    assert answer.status == 200, answer
    return answer.json


async def act(world: World, letter_id: str, what: str, body: Any = None, **how: Any) -> Answer:
    """Do something about one."""
    return await world.send("POST", f"/api/v1/admin/dead-letters/{letter_id}/{what}", body or {}, **how)
