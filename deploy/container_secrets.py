"""The secrets of the compose file: random, one file each, so that each container gets its own alone."""

import base64
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

import msgspec

from deploy import broker_users, setup
from deploy.state import SECRET_BYTES
from shared import topology
from shared.errors import Clear

OWNER = "tender"
DATABASE_URL = "postgresql://{owner}:{password}@postgres:5432/tender"
AMQP_URL = "amqp://{owner}:{password}@rabbitmq:5672/"
MANAGEMENT_URL = "http://{owner}:{password}@rabbitmq:15672"
# The folder is its owner's alone. The files are mounted as they are into containers whose users are others.
FOLDER_MODE = 0o700
FILE_MODE = 0o644
POSTGRES, RABBITMQ, PASSWORDS = "postgres_password", "rabbitmq_default_user", "services_passwords"
# What providers are called with: the sandbox's key plays all of them until a provider's own is written over it.
PROVIDER_KEYS = ("sandbox_api_key", "stripe_api_key", "easypost_api_key", "shippo_api_key")


class SecretsUnreadable(Clear):
    """A file of secrets that is there already does not hold what was once written to it."""


def create(folder: Path) -> list[str]:
    """Write the secrets that are not there yet; returns their names. What is there stays, and what depends on it follows it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(FOLDER_MODE)
    contents = _contents(folder)
    missing = [name for name in contents if not (folder / name).exists()]
    for name in missing:
        _write(folder / name, contents[name])
    return missing


def passwords_of(file: Path) -> dict[str, str]:
    """Read the password of each service, by its name; raises SecretsUnreadable."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except msgspec.DecodeError:
        # What was read is not shown: it may be a password.
        raise SecretsUnreadable(f"{file} is not a JSON object of services and their passwords") from None


def _contents(folder: Path) -> dict[str, str]:
    database = _present(folder, POSTGRES) or _random()
    rabbitmq = _present(folder, RABBITMQ) or f"default_user = {OWNER}\ndefault_pass = {_random()}"
    broker = rabbitmq.rpartition("default_pass = ")[2].strip()
    known = passwords_of(folder / PASSWORDS) if (folder / PASSWORDS).exists() else {}
    passwords = {service: known.get(service) or _random() for service in broker_users.USERS}
    sandbox_key = _present(folder, "sandbox_api_key") or f"sk_sandbox_{_random()}"
    signing = {name: _present(folder, name) or _webhook_secret() for name in ("sandbox_webhook_secret", "stripe_webhook_secret")}
    owner_database = DATABASE_URL.format(owner=OWNER, password=database)
    owner_amqp = AMQP_URL.format(owner=OWNER, password=broker)
    return {
        POSTGRES: database,
        RABBITMQ: rabbitmq,
        PASSWORDS: msgspec.json.encode(passwords).decode(),
        "owner_database_url": owner_database,
        "owner_amqp_url": owner_amqp,
        "owner_management_url": MANAGEMENT_URL.format(owner=OWNER, password=broker),
        **_service_urls(owner_database, owner_amqp, passwords),
        "token_secret": _random(),
        **dict.fromkeys(PROVIDER_KEYS, sandbox_key),
        **signing,
        "webhook_accounts": _accounts(signing),
    }


def _service_urls(database_url: str, amqp_url: str, passwords: Mapping[str, str]) -> dict[str, str]:
    services = [service.name for service in setup.SERVICES]
    return {
        **{f"{service}_database_url": setup.service_url(database_url, service, passwords[service]) for service in services},
        **{
            f"{service}_amqp_url": broker_users.service_url(amqp_url, service, passwords[service])
            for service in (*services, topology.OBSERVER)
        },
    }


def _accounts(signing: Mapping[str, str]) -> str:
    secret_of = {
        "sandbox": signing["sandbox_webhook_secret"],
        "sandbox-carrier": signing["sandbox_webhook_secret"],
        "stripe": signing["stripe_webhook_secret"],
    }
    accounts = [
        {"provider": name, "environment": "sandbox", "account": f"{name}:default", "secrets": [secret]}
        for name, secret in secret_of.items()
    ]
    return msgspec.json.encode(accounts).decode()


def _present(folder: Path, name: str) -> str:
    return (folder / name).read_text().strip() if (folder / name).exists() else ""


def _random() -> str:
    return secrets.token_hex(SECRET_BYTES)


def _webhook_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def _write(file: Path, text: str) -> None:
    # Written to a temporary file first: a reader finds all of it or none.
    partial = file.with_suffix(".partial")
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE_MODE), "w") as stream:
        os.fchmod(stream.fileno(), FILE_MODE)
        stream.write(f"{text}\n")
    partial.replace(file)
