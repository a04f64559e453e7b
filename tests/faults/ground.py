"""The ground a fault test stands on: servers of its own that may be stopped, services as processes, and the sandbox."""

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from deploy import broker_users, setup
from deploy.sandbox.webhooks import Moods
from deploy.servers import postgres, rabbitmq
from deploy.state import Instance
from tests.faults.nursery import Nursery
from tests.faults.system import System, a_system
from tests.world import PASSWORD, Place, World

BROKER = "broker"
DATABASE = "tender"
DATABASE_CONNECTIONS_MAX = 60


class Ground:
    """Everything a fault can get at."""

    def __init__(self, folder: Path, broker: rabbitmq.Private, database: postgres.Embedded, system: System, world: World) -> None:
        self._folder = folder
        self.broker = broker
        self.database = database
        self.system = system
        self.world = world
        # What chance brings; the soak has its own, by its seed.
        self.rng = random.Random()

    @property
    def management_url(self) -> str:
        """Where the broker's management API is."""
        return self.broker.management_url

    def lose_broker_disk(self) -> None:
        """Delete what the broker has written, while it is stopped: queues, messages, users."""
        shutil.rmtree(self._folder / BROKER / "rabbitmq" / "mnesia")


@contextlib.asynccontextmanager
async def a_ground(nursery: Nursery, folder: Path, *, moods: Moods | None = None, **changes: Any) -> AsyncIterator[Ground]:
    """Run a broker, a database, the services and the sandbox, all of their own."""
    installation = rabbitmq.installed()
    if installation is None:
        installation = rabbitmq.downloaded(Instance(folder, "servers"), lambda _: None)
    broker = rabbitmq.Private(Instance(folder, BROKER), installation)
    database = postgres.Embedded(Instance(folder, "database"), connections_max=DATABASE_CONNECTIONS_MAX)
    try:
        await asyncio.gather(asyncio.to_thread(broker.start), asyncio.to_thread(database.start))
        database_url = await setup.create_database(database.url, DATABASE)
        await setup.prepare(database_url, broker.amqp_url, password=PASSWORD)
        await broker_users.make(broker.management_url, password=PASSWORD)
        await broker_users.grant(broker.management_url, "/")
        place = Place(database_url=database_url, amqp_url=broker.amqp_url, management_url=broker.management_url, vhost="/")
        async with a_system(nursery, place, folder, webhooks=True, moods=moods, **changes) as (system, world):
            yield Ground(folder, broker, database, system, world)
    finally:
        await asyncio.gather(asyncio.to_thread(broker.stop), asyncio.to_thread(database.stop))
