"""The image and the compose file: what they install, which releases they name, and how little their containers may do."""

import re
import tomllib
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import yaml

from deploy import container_secrets, settings_reference, setup
from deploy.servers import docker
from deploy.state import ROOT
from shared.settings import has_file, load, variable_of
from tests.deploy.test_cli import tender
from tests.world import PASSWORD, Place, management

DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
COMPOSED: dict[str, Any] = yaml.safe_load(docker.COMPOSE_FILE.read_text())["services"]
DECLARED: dict[str, Any] = yaml.safe_load(docker.COMPOSE_FILE.read_text())["secrets"]
MOUNTED = "/run/secrets/"
SECRETS_FOLDER = "deploy/secrets"
# Variables whose value is a secret, or holds one: those are read from files alone.
SECRET_VARIABLES = {
    *(variable_of(field) for kind in settings_reference.KINDS.values() for field in msgspec.structs.fields(kind) if has_file(kind, field)),
    *("POSTGRES_PASSWORD", "RABBITMQ_DEFAULT_PASS", "RABBITMQ_MANAGEMENT_URL", "SERVICES_PASSWORD"),
}
# What an image's entry point needs before it gives up being root.
CAPABILITIES = {"postgres": ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]}
TOOLS = {"pytest", "hypothesis", "ruff", "mypy", "playwright", "werkzeug", "testcontainers", "pip", "setuptools", "wheel", "uv"}
OURS = {name: service for name, service in COMPOSED.items() if service["image"] == "tender"}
SERVICES = [service.name for service in setup.SERVICES]
# A release with its patch version, also of the variant: not 4, not latest.
RELEASE = re.compile(r"[a-z/]+:v?\d+(\.\d+)+(-[a-z]+)*")


class TestImage:
    def test_holds_the_run_time_lock_alone(self) -> None:
        assert re.findall(r"\S+\.lock", DOCKERFILE) == ["requirements.lock", "requirements.lock"]
        assert "--only-binary :all: --require-hashes" in DOCKERFILE

    def test_holds_no_tool_to_build_or_test_with(self) -> None:
        locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

        assert locked
        assert locked & TOOLS == set()
        assert "pip uninstall -y --root-user-action=ignore pip\n" in DOCKERFILE

    @pytest.mark.parametrize("ignored", [".dockerignore", ".gitignore"])
    def test_the_secrets_are_in_no_image_and_no_commit(self, ignored: str) -> None:
        assert SECRETS_FOLDER in (ROOT / ignored).read_text().replace("/\n", "\n").splitlines()

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

    @pytest.mark.parametrize("name", COMPOSED)
    def test_lets_a_container_do_little(self, name: str) -> None:
        """M16, row 132."""
        container = COMPOSED[name]

        assert (container.get("read_only"), container.get("cap_drop")) == (True, ["ALL"])
        assert container.get("cap_add", []) == CAPABILITIES.get(name, [])
        assert container["security_opt"] == ["no-new-privileges:true"]
        assert container["tmpfs"] == (["/tmp"] if name in OURS else container["tmpfs"])

    @pytest.mark.parametrize("name", COMPOSED)
    def test_takes_every_secret_from_a_file_of_its_own(self, name: str) -> None:
        """M16, row 132: no default, no value in the environment, and no container sees another's."""
        environment = COMPOSED[name].get("environment", {})
        mounted = {each["source"] if isinstance(each, dict) else each for each in COMPOSED[name].get("secrets", [])}
        read = {value.removeprefix(MOUNTED) for variable, value in environment.items() if variable.endswith("_FILE") and MOUNTED in value}

        assert [variable for variable in environment if variable in SECRET_VARIABLES] == []
        assert [value for value in environment.values() if re.search(r"://[^/@]*:[^/@]*@", str(value))] == []
        assert mounted - read == ({"rabbitmq_default_user"} if name == "rabbitmq" else set())
        assert read <= mounted <= DECLARED.keys()

    def test_reads_no_secret_by_a_variable_with_a_default(self) -> None:
        defaults = re.findall(r"\$\{([A-Z_]+):?-", docker.COMPOSE_FILE.read_text())

        assert [name for name in defaults if re.search(r"PASSWORD|SECRET\b|KEY|TOKEN|ACCOUNTS", name)] == []

    @pytest.mark.parametrize("name", SERVICES)
    def test_gives_each_secret_setting_to_the_service_that_reads_it(self, name: str) -> None:
        kind = settings_reference.KINDS[name]
        files = {f"{variable_of(field)}_FILE" for field in msgspec.structs.fields(kind) if has_file(kind, field)}

        assert {variable for variable in OURS[name]["environment"] if variable.endswith("_FILE")} <= files

    @pytest.mark.parametrize("name", COMPOSED)
    def test_limits_the_memory_and_the_log_of_each(self, name: str) -> None:
        assert COMPOSED[name]["mem_limit"]
        assert COMPOSED[name]["logging"]["options"].keys() == {"max-size", "max-file"}

    @pytest.mark.parametrize("name", SERVICES)
    def test_gives_each_service_users_of_its_own_and_time_to_stop(self, name: str) -> None:
        environment = OURS[name]["environment"]

        assert environment["DATABASE_URL_FILE"] == f"{MOUNTED}{name}_database_url"
        assert environment["AMQP_URL_FILE"] == f"{MOUNTED}{name}_amqp_url"
        assert OURS[name]["stop_grace_period"] == "60s"

    def test_keeps_what_is_to_last_in_volumes(self) -> None:
        assert OURS["sandbox"]["environment"]["SANDBOX_FILE"].startswith("/data/")
        assert OURS["sandbox"]["volumes"] == ["sandbox:/data"]


class TestSecrets:
    def test_are_all_that_the_compose_file_reads(self, tmp_path: Path) -> None:
        created = container_secrets.create(tmp_path)

        assert set(created) == DECLARED.keys()
        assert {each["file"].rpartition("/")[2] for each in DECLARED.values()} == DECLARED.keys()
        assert tmp_path.stat().st_mode & 0o777 == 0o700

    def test_differ_by_service_and_by_installation(self, tmp_path: Path) -> None:
        container_secrets.create(tmp_path / "one")
        container_secrets.create(tmp_path / "other")

        passwords = [*_passwords(tmp_path / "one").values(), *_passwords(tmp_path / "other").values()]
        assert _passwords(tmp_path / "one").keys() == {*SERVICES, "observer"}
        assert len(set(passwords)) == len(passwords)
        assert min(map(len, passwords)) >= 64

    def test_stay_when_they_are_created_again(self, tmp_path: Path) -> None:
        container_secrets.create(tmp_path)
        before = {file.name: file.read_text() for file in tmp_path.iterdir()}
        (tmp_path / "payments_amqp_url").unlink()

        assert container_secrets.create(tmp_path) == ["payments_amqp_url"]
        assert {file.name: file.read_text() for file in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("name", SERVICES)
    def test_are_settings_that_a_service_starts_with(self, name: str, tmp_path: Path) -> None:
        container_secrets.create(tmp_path)
        environment = {
            variable: str(value).replace(MOUNTED, f"{tmp_path}/").replace("${", "").replace("}", "").rpartition(":-")[2]
            for variable, value in OURS[name]["environment"].items()
        }

        settings: Any = load(settings_reference.KINDS[name], environment)

        assert f"tender_{name}:{_passwords(tmp_path)[name]}@postgres:5432" in settings.database_url
        assert f"tender_{name}:{_passwords(tmp_path)[name]}@rabbitmq:5672" in settings.amqp_url


def _passwords(folder: Path) -> dict[str, str]:
    return container_secrets.passwords_of(folder / container_secrets.PASSWORDS)


async def test_migrate_gives_each_service_its_own_password(bare_place: Place, tmp_path: Path) -> None:
    """The roles belong to the server of all tests, so the passwords are theirs again: only the broker's users may differ."""
    assert bare_place.management_url is not None
    passwords = tmp_path / "passwords"
    passwords.write_bytes(msgspec.json.encode(dict.fromkeys((*SERVICES, "observer"), PASSWORD)))
    (tmp_path / "database_url").write_text(f"{bare_place.database_url}\n")

    done = tender(
        "migrate",
        home=tmp_path,
        DATABASE_URL_FILE=str(tmp_path / "database_url"),
        AMQP_URL=bare_place.amqp_url,
        SERVICES_PASSWORDS_FILE=str(passwords),
    )

    assert done.returncode == 0, done.stderr
    for name in SERVICES:
        connection = await asyncpg.connect(setup.service_url(bare_place.database_url, name, PASSWORD))
        assert await connection.fetchval("SELECT current_schema()") == name
        await connection.close()


@pytest.mark.parametrize("given", [{}, {"SERVICES_PASSWORD": "x", "SERVICES_PASSWORDS_FILE": "y"}], ids=["neither", "both"])
def test_migrate_needs_one_way_to_give_passwords(given: dict[str, str], tmp_path: Path) -> None:
    done = tender("migrate", home=tmp_path, DATABASE_URL="postgresql://x/y", AMQP_URL="amqp://x/", **given)

    assert done.returncode == 1
    assert "Give either --password or --passwords-file." in done.stderr


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
