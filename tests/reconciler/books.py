"""What tests of reconciling share: a run over everything, and what it found."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.world import World, until


async def a_run(world: World, domain: str = "payments", provider: str | None = None, **times: datetime) -> Any:
    """Compare everything up to now and wait until the run is complete."""
    since = times.get("since", datetime.now(UTC) - timedelta(hours=3))
    body = {"domain": domain, "provider": provider or world.provider, "since": since.isoformat()}
    answer = await world.send("POST", "/api/v1/admin/reconciliation/runs", {**body, "until": datetime.now(UTC).isoformat()})
    assert answer.status == 201, answer
    return await until(lambda: completed(world, answer.json["id"]))


async def completed(world: World, run_id: str) -> Any:
    answer = await world.send("GET", f"/api/v1/admin/reconciliation/runs/{run_id}")
    assert answer.status == 200, answer
    return answer.json if answer.json["status"] == "completed" else None


async def drift(world: World, **filters: str) -> list[Any]:
    """List differences, the oldest first."""
    query = "&".join(f"{name}={value}" for name, value in filters.items())
    answer = await world.send("GET", f"/api/v1/admin/reconciliation/drift?{query}")
    assert answer.status == 200, answer
    return list(reversed(answer.json["items"]))


async def make_drift(world: World, domain: str, key: str, **what: Any) -> Any:
    """Have the provider's books say something else."""
    answer = await world.http.post(f"{world.sandbox.base_url}/control/drift/{domain}/{key}", json=what)
    assert answer.status_code == 200, answer.text
    return answer.json()


def brief(items: list[Any]) -> list[tuple[str, str, str]]:
    """What differs, in short: type, kind of operation, status."""
    return [(item["type"], item["entry"].partition(" ")[0], item["status"]) for item in items]


Check = Callable[[], Awaitable[None]]
