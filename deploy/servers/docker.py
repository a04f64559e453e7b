"""Servers in containers, when Docker answers; through testcontainers, so that they are gone with us."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from deploy.processes import Failed
from deploy.state import ROOT, Instance

if TYPE_CHECKING:
    from testcontainers.core.container import DockerContainer

COMPOSE_FILE = ROOT / "deploy" / "compose.yaml"
POSTGRES_READY = "database system is ready to accept connections"
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
        _container(
            image("POSTGRES_IMAGE", os.environ.get("POSTGRES_IMAGE")), says="database system is ready to accept connections", times=2
        )
        .with_exposed_ports(5432)
        .with_env("POSTGRES_USER", "tender")
        .with_env("POSTGRES_PASSWORD", password)
    )
    with _running(container) as up:
        yield f"postgresql://tender:{password}@{up.get_container_host_ip()}:{up.get_exposed_port(5432)}/postgres"


@contextmanager
def rabbitmq(instance: Instance) -> Iterator[tuple[str, str]]:
    """Run RabbitMQ in a container while inside."""
    password = instance.secret("rabbitmq")
    container = (
        _container(image("RABBITMQ_IMAGE", os.environ.get("RABBITMQ_IMAGE")), says="Server startup complete")
        .with_exposed_ports(5672, 15672)
        .with_env("RABBITMQ_DEFAULT_USER", "tender")
        .with_env("RABBITMQ_DEFAULT_PASS", password)
    )
    with _running(container) as up:
        host = up.get_container_host_ip()
        yield (
            f"amqp://tender:{password}@{host}:{up.get_exposed_port(5672)}/",
            f"http://tender:{password}@{host}:{up.get_exposed_port(15672)}",
        )


def image(variable: str, given: str | None) -> str:
    """Take the image that was given in a variable, or the tested version in the compose file."""
    tested = re.search(rf"\$\{{{variable}:-([^}}]+)\}}", COMPOSE_FILE.read_text())
    assert tested is not None, "the compose file names every image this way"
    return given or tested[1]


def _container(image_name: str, *, says: str, times: int = 1) -> "DockerContainer":
    if not answers():
        raise Failed("Docker does not answer: start it, or leave --docker away.")
    try:
        from testcontainers.core.container import DockerContainer
        from testcontainers.core.wait_strategies import LogMessageWaitStrategy
    except ModuleNotFoundError as missing:
        raise Failed(f"Containers need the packages of requirements-servers.lock, and one is missing: {missing.name}.") from missing
    return DockerContainer(image_name).waiting_for(LogMessageWaitStrategy(says, times=times))


@contextmanager
def _running(container: "DockerContainer") -> Iterator["DockerContainer"]:
    with container as up:
        yield up
