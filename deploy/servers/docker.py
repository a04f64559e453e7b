"""Servers in containers, when Docker answers; through testcontainers, so that they are gone with us."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from deploy.processes import Failed
from deploy.state import Instance

POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE", "postgres:17")
RABBITMQ_IMAGE = os.environ.get("RABBITMQ_IMAGE", "rabbitmq:4-management")
ANSWER_TIMEOUT_SECONDS = 5
START_TIMEOUT_SECONDS = 120


def answers() -> bool:
    """Tell whether a Docker engine answers."""
    if shutil.which("docker") is None:
        return False
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=ANSWER_TIMEOUT_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


@contextmanager
def postgres(instance: Instance) -> Iterator[str]:
    """Run Postgres in a container while inside."""
    password = instance.secret("postgres")
    container = (
        DockerContainer(POSTGRES_IMAGE)
        .with_exposed_ports(5432)
        .with_env("POSTGRES_USER", "tender")
        .with_env("POSTGRES_PASSWORD", password)
        .waiting_for(LogMessageWaitStrategy("database system is ready to accept connections", times=2))
    )
    with _running(container) as up:
        yield f"postgresql://tender:{password}@{up.get_container_host_ip()}:{up.get_exposed_port(5432)}/postgres"


@contextmanager
def rabbitmq(instance: Instance) -> Iterator[tuple[str, str]]:
    """Run RabbitMQ in a container while inside."""
    password = instance.secret("rabbitmq")
    container = (
        DockerContainer(RABBITMQ_IMAGE)
        .with_exposed_ports(5672, 15672)
        .with_env("RABBITMQ_DEFAULT_USER", "tender")
        .with_env("RABBITMQ_DEFAULT_PASS", password)
        .waiting_for(LogMessageWaitStrategy("Server startup complete"))
    )
    with _running(container) as up:
        host = up.get_container_host_ip()
        yield (
            f"amqp://tender:{password}@{host}:{up.get_exposed_port(5672)}/",
            f"http://tender:{password}@{host}:{up.get_exposed_port(15672)}",
        )


@contextmanager
def _running(container: DockerContainer) -> Iterator[DockerContainer]:
    if not answers():
        raise Failed("Docker does not answer: start it, or leave --docker away.")
    with container as up:
        yield up
