"""The image and the compose file: what they install, which releases they name, and how little their containers may do."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import setup
from deploy.servers import docker
from deploy.state import ROOT
from tests.deploy.test_cli import tender
from tests.world import PASSWORD, Place, management

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSED: dict[str, Any] = yaml.safe_load(docker.COMPOSE_FILE.read_text())["services"]
OURS = {name: service for name, service in COMPOSED.items() if service["image"] == "tender"}
SERVICES = [service.name for service in setup.SERVICES]
# A release with its patch version, also of the variant: not 4, not latest.
RELEASE = re.compile(r"[a-z/]+:v?\d+(\.\d+)+(-[a-z]+)*")


class TestImage:
    def test_holds_the_run_time_lock_alone(self) -> None:
        assert re.findall(r"\S+\.lock", DOCKERFILE) == ["requirements.lock", "requirements.lock"]
        assert "--only-binary :all: --require-hashes" in DOCKERFILE

    def test_bears_the_version(self) -> None:
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

        assert f"ARG VERSION={project['version']}\n" in DOCKERFILE

    def test_is_made_of_the_same_python_everywhere(self) -> None:
        default = re.search(r"^ARG PYTHON_IMAGE=(.*)$", DOCKERFILE, re.MULTILINE)

        assert default is not None
        assert RELEASE.fullmatch(default[1])
        assert {service["build"]["args"]["PYTHON_IMAGE"] for service in OURS.values()} == {f"${{PYTHON_IMAGE:-{default[1]}}}"}


class TestComposeFile:
    @pytest.mark.parametrize("name", ["postgres", "rabbitmq", "jaeger"])
    def test_names_a_release_that_may_be_replaced(self, name: str) -> None:
        variable = f"{name.upper()}_IMAGE"
        release = docker.image(variable, None)

        assert RELEASE.fullmatch(release)
        assert COMPOSED[name]["image"] == f"${{{variable}:-{release}}}"
        assert docker.image(variable, "elsewhere/it:1.2.3") == "elsewhere/it:1.2.3"

    @pytest.mark.parametrize("name", OURS)
    def test_lets_a_container_of_ours_do_little(self, name: str) -> None:
        container = OURS[name]

        assert (container["read_only"], container["tmpfs"], container["cap_drop"]) == (True, ["/tmp"], ["ALL"])
        assert container["security_opt"] == ["no-new-privileges:true"]

    @pytest.mark.parametrize("name", COMPOSED)
    def test_limits_the_memory_and_the_log_of_each(self, name: str) -> None:
        assert COMPOSED[name]["mem_limit"]
        assert COMPOSED[name]["logging"]["options"].keys() == {"max-size", "max-file"}

    @pytest.mark.parametrize("name", SERVICES)
    def test_gives_each_service_users_of_its_own_and_time_to_stop(self, name: str) -> None:
        environment = OURS[name]["environment"]

        assert environment["DATABASE_URL"].startswith(f"postgresql://tender_{name}:")
        assert environment["AMQP_URL"].startswith(f"amqp://tender_{name}:")
        assert OURS[name]["stop_grace_period"] == "60s"

    def test_keeps_what_is_to_last_in_volumes(self) -> None:
        assert OURS["sandbox"]["environment"]["SANDBOX_FILE"].startswith("/data/")
        assert OURS["sandbox"]["volumes"] == ["sandbox:/data"]


async def test_migrate_makes_the_brokers_users(bare_place: Place, tmp_path: Path) -> None:
    assert bare_place.management_url is not None
    done = tender(
        "migrate",
        home=tmp_path,
        DATABASE_URL=bare_place.database_url,
        AMQP_URL=bare_place.amqp_url,
        SERVICES_PASSWORD=PASSWORD,
        RABBITMQ_MANAGEMENT_URL=bare_place.management_url,
    )
    async with management(bare_place.management_url) as http:
        permissions = (await http.get(f"/api/vhosts/{bare_place.vhost}/permissions")).json()

    assert done.returncode == 0, done.stderr
    assert {f"tender_{name}" for name in SERVICES} <= {each["user"] for each in permissions}
