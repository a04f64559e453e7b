"""The reference page of all settings, made from their declarations."""

from collections.abc import Iterator, Sequence
from enum import Enum

import msgspec
from msgspec.structs import FieldInfo

from deploy.sandbox.settings import SandboxSettings
from services.fulfillment.settings import Settings as FulfillmentSettings
from services.gateway.settings import Settings as GatewaySettings
from services.payments.settings import Settings as PaymentsSettings
from services.reconciler.settings import Settings as ReconcilerSettings
from services.webhooks.settings import Settings as WebhooksSettings
from shared.settings import BusSettings, EnvironmentSettings, expected, has_file, meta_of, variable_of

KINDS: dict[str, type[EnvironmentSettings]] = {
    "Every service": BusSettings,
    "gateway": GatewaySettings,
    "payments": PaymentsSettings,
    "webhooks": WebhooksSettings,
    "fulfillment": FulfillmentSettings,
    "reconciler": ReconcilerSettings,
    "sandbox": SandboxSettings,
}


class Variable(msgspec.Struct, frozen=True):
    """An environment variable that is read outside of settings structs."""

    name: str
    default: str
    meaning: str


COMMAND_LINE = (
    Variable(
        "TENDER_HOME",
        "`.tender` in the repository",
        "The folder of the Python environment, servers, logs and keys of this machine's system.",
    ),
    Variable("TENDER_URL", "the running system's", "The gateway that the operator's commands call."),
    Variable("TENDER_STORE", "the key's own", "The id of the store they work in; another than the key's needs an operator's key."),
    Variable("TENDER_KEY", "the running system's", "The API key with which they call it."),
    Variable("TENDER_CHROMIUM", "searched for", "The Chromium that the console's tests use."),
    Variable("TENDER_TEST_DOCKER", "not set", "If set, `./tender test` takes its servers from Docker."),
    Variable("TENDER_TEST_LOCAL", "not set", "If set, `./tender test` uses the servers on ports 5432 and 5672."),
    Variable(
        "DATABASE_URL",
        "servers of our own",
        "The database, as its owner: `migrate`, `demo`, `up`, `test` and what speaks to the database itself.",
    ),
    Variable(
        "AMQP_URL", "servers of our own", "The broker, as a user who may declare queues: `migrate`, `topology`, `demo`, `up`, `test`."
    ),
    Variable(
        "RABBITMQ_MANAGEMENT_URL",
        "none",
        "The broker's management API, with its administrator's name and password: `broker-users`, `up`, `test`.",
    ),
    Variable(
        "SERVICES_PASSWORD",
        "this or the next is required by `migrate` and `broker-users`",
        "One password for all of the services' roles and users, which these commands set.",
    ),
    Variable("SERVICES_PASSWORDS_FILE", "none", "A JSON file with a password for each service."),
    Variable("OTEL_EXPORTER_OTLP_ENDPOINT", "none", "Where `up` has its services send traces."),
    Variable("STRIPE_API_KEY", "none", "A test key: `demo --provider stripe` and `up` then speak to Stripe itself."),
    Variable("STRIPE_URL", "Stripe's", "Where Stripe is, if there is such a key."),
    Variable("STRIPE_MULTICAPTURE", "false", "Whether that account has multicapture."),
    Variable("STRIPE_WEBHOOK_SECRET", "none", "The secret of that account's webhooks."),
    Variable("POSTGRES_IMAGE", "see the compose file", "The image of `--docker` and of the compose file."),
    Variable("RABBITMQ_IMAGE", "see the compose file", "The image of `--docker` and of the compose file."),
)
COMPOSE = (
    Variable("TENDER_SECRETS", "`./secrets` beside it", "The folder of the secrets that `./tender secrets create` writes."),
    Variable("CONSOLE_SECURE_COOKIE", "false", "CONSOLE_SECURE_COOKIE of the gateway; true behind an ingress with TLS."),
    Variable("TRUSTED_PROXIES", "none", "TRUSTED_PROXIES of the gateway."),
    Variable("STRIPE_URL", "the sandbox", "STRIPE_URL of payments."),
    Variable("STRIPE_MULTICAPTURE", "true", "STRIPE_MULTICAPTURE of payments."),
    Variable("EASYPOST_URL", "the sandbox", "EASYPOST_URL of fulfillment."),
    Variable("SHIPPO_URL", "the sandbox", "SHIPPO_URL of fulfillment."),
    Variable("PYTHON_IMAGE", "see the compose file", "The image that ours is built on."),
    Variable("POSTGRES_IMAGE", "see the compose file", "The image of Postgres."),
    Variable("RABBITMQ_IMAGE", "see the compose file", "The image of RabbitMQ."),
    Variable("JAEGER_IMAGE", "see the compose file", "The image of Jaeger."),
)
LIBRARIES = (
    Variable(
        "HTTPS_PROXY, HTTP_PROXY, NO_PROXY",
        "none",
        "Proxies for calls of providers; not for merchants' webhooks, printed labels and PayPal's certificate.",
    ),
    Variable(
        "SSL_CERT_FILE, SSL_CERT_DIR",
        "the system's",
        "The authorities that certificates of providers and of the broker's management API come from.",
    ),
    Variable("PGSSLMODE, PGSSLROOTCERT, PGTARGETSESSIONATTRS", "none", "Like libpq's other variables, what DATABASE_URL leaves out."),
    Variable(
        "OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE",
        "none",
        "Headers and authority for sending traces, as OpenTelemetry has them.",
    ),
)
INTRODUCTION = """\
# Settings

This page is printed by `./tender settings` from the declarations in the code; a test compares them.

A setting is an environment variable. An empty one counts as not set. A process that finds settings missing or wrong ends at once
with one line for each, `VARIABLE: what is wrong`, and a non-zero exit; secrets are not shown.

A variable marked with ¹ can also be read from a file: set the same name with `_FILE` behind it
(`DATABASE_URL_FILE=/run/secrets/database-url`). The file is read once, at start, and spaces and line ends around its content are dropped.

How to reach the servers, by TLS and otherwise, is in [connections.md](connections.md).
"""


def page() -> str:
    """Write the page."""
    return "\n".join(_lines()).rstrip()


def _lines() -> Iterator[str]:
    yield INTRODUCTION
    for name, kind in KINDS.items():
        yield f"## {name}\n"
        if issubclass(kind, BusSettings) and kind is not BusSettings:
            yield f"Run with `python -m services.{name}`. Besides those of every service:\n"
        if kind is SandboxSettings:
            yield "Run with `python -m deploy.sandbox`.\n"
        yield from _table(("variable", "default", "value", "meaning"), [_row(kind, field) for field in own_fields(kind)])
    yield "## Command line\n"
    yield (
        "Read by `./tender`; most have an option too (`./tender COMMAND --help`). An operator's commands read\n"
        "`DATABASE_URL`, `AMQP_URL` and `RABBITMQ_MANAGEMENT_URL` from files too (`DATABASE_URL_FILE` …).\n"
    )
    yield from _table(("variable", "default", "meaning"), [(f"`{each.name}`", each.default, each.meaning) for each in COMMAND_LINE])
    yield "## Compose file\n"
    yield "Read by `docker compose -f deploy/compose.yaml`, which gives each container the settings above.\n"
    yield from _table(("variable", "default", "meaning"), [(f"`{each.name}`", each.default, each.meaning) for each in COMPOSE])
    yield "## Libraries\n"
    yield "Read by libraries that every service uses.\n"
    yield from _table(("variable", "default", "meaning"), [(f"`{each.name}`", each.default, each.meaning) for each in LIBRARIES])


def own_fields(kind: type[EnvironmentSettings]) -> list[FieldInfo]:
    """List a struct's settings, without those that it shares with every service."""
    shared = [] if kind is BusSettings else list(msgspec.structs.fields(BusSettings))
    return [field for field in msgspec.structs.fields(kind) if issubclass(kind, SandboxSettings) or field not in shared]


def _row(kind: type[EnvironmentSettings], field: FieldInfo) -> tuple[str, ...]:
    mark = " ¹" if has_file(kind, field) else ""
    return f"`{variable_of(field)}`{mark}", _default(field), expected(field), meta_of(field).description or ""


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.required:
        return "required"
    if value == "":
        return "none"
    if isinstance(value, bool | Enum):
        return f"`{str(value.value if isinstance(value, Enum) else value).lower()}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield _line(heads)
    yield _line(["---"] * len(heads))
    yield from map(_line, rows)
    yield ""


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
