"""Where tests get their servers: a database and a vhost per module, cloned from ones made once."""

import contextlib
import logging
import os
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import msgspec
import pytest

from deploy import broker_users, setup
from shared import telemetry, topology
from shared.ids import new_id
from shared.migrations import migrate, settle_role
from tests.faults.nursery import Nursery
from tests.leaks import Watch, leaks_at, leaks_on_disk
from tests.leaving_out import TESTS, left_out
from tests.planted import leaks_in
from tests.world import PASSWORD, Place, World, a_world, management

ROLES_LOCK = 7_230_511_002
# Packages of the development lock that cannot be had here, and why; ./tender test tells.
MISSING: dict[str, str] = msgspec.json.decode(os.environ.get("TENDER_TEST_MISSING") or "{}")
LEFT_OUT = left_out(MISSING)
collect_ignore = [str(path) for path in LEFT_OUT]


watch = Watch()


def pytest_configure() -> None:
    telemetry.log_to_stderr("tests", "INFO")
    logging.getLogger().addHandler(watch)


def pytest_report_header() -> list[str]:
    return _left_out_lines()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LEFT_OUT:
        terminalreporter.section("left out")
    for line in _left_out_lines():
        terminalreporter.write_line(line)


def _left_out_lines() -> list[str]:
    lines = [f"  {path.relative_to(TESTS.parent)}: {package} cannot be had here: {MISSING[package]}" for path, package in LEFT_OUT.items()]
    return [f"Test files and folders left out for want of a package: {len(LEFT_OUT)}", *lines]


@pytest.fixture(scope="module", autouse=True)
def _nothing_secret_is_logged() -> Iterator[None]:
    yield
    found, watch.found = watch.found, []
    assert found == []


@pytest.fixture(scope="session")
def database_server() -> str:
    url = os.environ.get("TENDER_TEST_DATABASE_URL")
    assert url, "run the tests with ./tender test, which brings the servers"
    return url


@pytest.fixture(scope="session")
async def broker() -> AsyncIterator[tuple[str, str | None]]:
    url, management_url = os.environ.get("TENDER_TEST_AMQP_URL"), os.environ.get("TENDER_TEST_MANAGEMENT_URL") or None
    assert url, "run the tests with ./tender test, which brings the servers"
    yield url, management_url
    # Once, for its files grow with the tests.
    assert await leaks_on_disk(management_url) == []


@pytest.fixture(scope="session")
async def template(database_server: str) -> AsyncIterator[str]:
    """A migrated database that modules clone."""
    name = f"tender_template_{new_id().hex}"
    url = await setup.create_database(database_server, name)
    # Roles belong to the whole server: test runs beside each other must not make them at once.
    turn = await asyncpg.connect(database_server)
    await turn.execute("SELECT pg_advisory_lock($1)", ROLES_LOCK)
    await migrate(url, setup.SERVICES, password=PASSWORD)
    await turn.close()
    yield name
    await setup.drop_database(database_server, name)


@contextlib.asynccontextmanager
async def _a_place(database_server: str, broker: tuple[str, str | None], template: str) -> AsyncIterator[Place]:
    async with _a_bare_place(database_server, broker, template=template) as place:
        for service in setup.SERVICES:
            await _find_own_schema(place.database_url, service.name)
        await topology.declare(place.amqp_url, topology.CONSUMERS)
        if place.management_url is not None:
            await broker_users.make(place.management_url, password=PASSWORD)
            await broker_users.grant(place.management_url, place.vhost)
        yield place


@contextlib.asynccontextmanager
async def _a_bare_place(database_server: str, broker: tuple[str, str | None], *, template: str = "template1") -> AsyncIterator[Place]:
    amqp_url, management_url = broker
    async with _a_database(database_server, template=template) as database_url:
        if management_url is None:
            yield Place(database_url=database_url, amqp_url=amqp_url, management_url=None, vhost="/")
            return
        name = f"tender_test_{new_id().hex}"
        url = urlunsplit(urlsplit(amqp_url)._replace(path=f"/{name}"))
        async with management(management_url) as http:
            (await http.put(f"/api/vhosts/{name}")).raise_for_status()
            yield Place(database_url=database_url, amqp_url=url, management_url=management_url, vhost=name)
            (await http.delete(f"/api/vhosts/{name}")).raise_for_status()


@contextlib.asynccontextmanager
async def _a_database(database_server: str, *, template: str = "template1") -> AsyncIterator[str]:
    name = f"tender_test_{new_id().hex}"
    yield await setup.create_database(database_server, name, template=template)
    await setup.drop_database(database_server, name)


@pytest.fixture(scope="module")
async def place(database_server: str, broker: tuple[str, str | None], template: str) -> AsyncIterator[Place]:
    """A database and a vhost of the module's own; when it is done, no secret may lie in them."""
    async with _a_place(database_server, broker, template) as made:
        yield made
        leaks = await leaks_at(made)
    assert leaks == []


@pytest.fixture(scope="module")
async def second_place(database_server: str, broker: tuple[str, str | None], template: str) -> AsyncIterator[Place]:
    """Another database and vhost of the module's own."""
    async with _a_place(database_server, broker, template) as made:
        yield made


@pytest.fixture
async def own_place(database_server: str, broker: tuple[str, str | None], template: str) -> AsyncIterator[Place]:
    """A database and a vhost of one test's own."""
    async with _a_place(database_server, broker, template) as made:
        yield made


@pytest.fixture
async def bare_place(database_server: str, broker: tuple[str, str | None]) -> AsyncIterator[Place]:
    """A database and a vhost of one test's own with nothing in them."""
    async with _a_bare_place(database_server, broker) as made:
        yield made


@pytest.fixture
async def bare_database(database_server: str) -> AsyncIterator[str]:
    """A database of one test's own with nothing in it."""
    async with _a_database(database_server) as made:
        yield made


async def _find_own_schema(database_url: str, service: str) -> None:
    # Its settings are kept per role and database, which a clone does not bring along.
    connection = await asyncpg.connect(database_url)
    await settle_role(connection, service)
    await connection.close()


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place) as made:
        yield made


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """A process with everything imported; services that may be killed are forked from it."""
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()
    assert [f"{log} holds {leak}" for log in made.logs for leak in leaks_in(log.read_text(errors="replace"))] == []
