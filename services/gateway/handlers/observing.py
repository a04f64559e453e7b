"""How everything is: each service asked at once, the broker asked how full its queues are, and samples of both for the lines."""

import asyncio
import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec

from services.gateway.domain import Access, Principal
from services.gateway.handlers.gateway import Gateway
from services.gateway.handlers.parts import GATEWAY, part, told
from services.gateway.store import observing as store
from shared import replicas, topology
from shared.bus import Depth, depths
from shared.contracts.dead_letters import GroupLetters, Groups
from shared.contracts.payments import ListUnknown, UnknownPage
from shared.contracts.reconciler import DriftPage, ListDrift
from shared.contracts.vitals import ASKED, Overview, ServiceView, Vitals
from shared.errors import Unavailable
from shared.ids import NOBODY, new_id
from shared.messages import Envelope, Environment

# What the lines on the overview show.
SAMPLES_SHOWN_MAX = 120
SAMPLES_KEPT_HOURS = 2.0
SEEN_FOR_SECONDS = 1.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What everybody said just now; nothing of whoever said nothing."""

    vitals: dict[str, Vitals]
    queues: Mapping[str, Depth] | None

    def depth(self, service: str) -> int | None:
        """Count what waits in a service's lanes."""
        return self.waiting(topology.lane(service), topology.background_lane(service)) if service in ASKED else None

    def waiting(self, *queues: str) -> int | None:
        """Count what waits in some queues."""
        if self.queues is None:
            return None
        return sum(self.queues[name].messages for name in queues if name in self.queues)


async def see(gateway: Gateway) -> Seen:
    """Ask everybody how they are."""
    envelope = Envelope(
        id=new_id(), store_id=NOBODY, environment=Environment.SANDBOX, source=GATEWAY, actor="job:overview", correlation_id=str(new_id())
    )
    said = await told(gateway, envelope, {service: kind() for service, kind in ASKED.items()}, Vitals)
    vitals = {service: each for service, each in said.items() if each is not None}
    own = await replicas.service_vitals(gateway.pool, gateway.pulse)
    return Seen(vitals={GATEWAY: own, **vitals}, queues=await _queues(gateway))


class Lookout:
    """Looks around at most once a second, for however many look on."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._turn = asyncio.Lock()
        self._seen: Seen | None = None
        self._at_seconds = 0.0

    async def look(self) -> Seen:
        """Tell what was seen within the last second."""
        async with self._turn:
            if self._seen is None or time.monotonic() - self._at_seconds > SEEN_FOR_SECONDS:
                self._seen = await see(self._gateway)
                self._at_seconds = time.monotonic()
            return self._seen


async def overview(gateway: Gateway, seen: Seen, principal: Principal, *, correlation_id: str) -> Overview:
    """Put together how everything is: of the whole installation for an operator, else of the caller's own store."""
    if principal.may(Access.INSTALLATION):
        return await _overview_of_all(gateway, seen)
    return await _overview_of_store(gateway, seen, gateway.envelope_for(principal, correlation_id=correlation_id))


async def _overview_of_store(gateway: Gateway, seen: Seen, envelope: Envelope) -> Overview:
    """Count what waits in one store, each count up to a page; of services only whether they answer."""
    unknown, drift, dead = await asyncio.gather(
        part(gateway, envelope, ListUnknown(), UnknownPage),
        part(gateway, envelope, ListDrift(status="open"), DriftPage),
        part(gateway, envelope, GroupLetters(), Groups),
    )
    letters = Counter[str]()
    for group in [] if dead is None else dead.groups:
        letters[group.service] += group.letters
    return Overview(
        services=[ServiceView(service=service, up=service in seen.vitals, dead_letters=letters[service]) for service in (GATEWAY, *ASKED)],
        unknown_outcomes=None if unknown is None else len(unknown.operations),
        drift_open=None if drift is None else len(drift.items),
        unrouted=None,
    )


async def _overview_of_all(gateway: Gateway, seen: Seen) -> Overview:
    samples = await store.samples(gateway.pool, limit=SAMPLES_SHOWN_MAX)
    payments, reconciler = seen.vitals.get("payments"), seen.vitals.get("reconciler")
    letters = {} if reconciler is None else reconciler.dead_letters
    services = [
        ServiceView(
            service=service,
            up=service in seen.vitals,
            depth=seen.depth(service),
            parked=seen.waiting(topology.dead_queue(service)) if service in ASKED else None,
            consumers=_consumers(seen, service),
            dead_letters=letters.get(service, 0),
            vitals=seen.vitals.get(service),
            samples=samples.get(service, []),
        )
        for service in (GATEWAY, *ASKED)
    ]
    return Overview(
        services=services,
        unknown_outcomes=None if payments is None else payments.unknown_outcomes,
        drift_open=None if reconciler is None else reconciler.drift_open,
        unrouted=seen.waiting(topology.UNROUTED_QUEUE),
    )


async def sample(gateway: Gateway) -> None:
    """Keep how everything is just now, and forget what is old."""
    seen, now = await see(gateway), datetime.now(UTC)
    every_seconds = gateway.settings.sample_every_seconds
    # Several gateways keep one sample between them.
    taken_at = datetime.fromtimestamp(now.timestamp() // every_seconds * every_seconds, UTC)
    depths_now = {service: seen.depth(service) for service in (GATEWAY, *ASKED)}
    await store.keep_samples(gateway.pool, taken_at, seen.vitals, depths_now)
    await store.forget_samples(gateway.pool, hours=SAMPLES_KEPT_HOURS)


def _consumers(seen: Seen, service: str) -> int | None:
    if service not in ASKED or seen.queues is None:
        return None
    queue = seen.queues.get(topology.lane(service))
    return 0 if queue is None else queue.consumers


async def _queues(gateway: Gateway) -> Mapping[str, Depth] | None:
    names = [
        queue for service in ASKED for queue in (topology.lane(service), topology.background_lane(service), topology.dead_queue(service))
    ]
    try:
        return await depths(gateway.settings.queue_depths_amqp_url or gateway.settings.amqp_url, [*names, topology.UNROUTED_QUEUE])
    except Unavailable:
        return None
