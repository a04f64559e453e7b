"""Settings: a frozen struct per service, read once from the environment, refused loudly when wrong."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from shared.errors import Clear


class BusSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service needs to reach its database, the broker and its watchers."""

    database_url: str
    amqp_url: str
    http_host: str = "127.0.0.1"
    http_port: int = 0
    log_level: str = "INFO"
    database_connections: int = 12
    # Per connection. Left out: 200, and 0 where a pooler (PgBouncer) is found in between.
    database_cached_statements: int | None = None
    prefetch: int = 64
    handler_timeout_seconds: float = 120
    shutdown_grace_seconds: float = 20
    # How long requests are still taken after SIGTERM, while readiness is 503 already, so that load balancers see it first.
    shutdown_notice_seconds: float = 5.0
    # How long a write waits for others of its kind to travel with; for services whose results nobody waits for.
    write_pause_seconds: float = 0.0
    # Nobody waits for events, so that more of them are handled together.
    group_pause_seconds: float = 0.05
    # How long whoever wrote an event may take to publish it before a sweeper does.
    outbox_head_start_seconds: float = 5.0
    otel_exporter_otlp_endpoint: str = ""
    # Of the requests whose callers do not trace them themselves.
    trace_sample_ratio: float = 0.05
    # How long a copy of the traces is kept in our own database; 0 keeps none.
    traces_kept_hours: float = 24.0


class SettingsRefused(Clear):
    """The environment lacks a setting or holds one that cannot be read; the text says which."""


S = TypeVar("S", bound=msgspec.Struct)


def load(kind: type[S], environ: Mapping[str, str]) -> S:
    """Read a settings struct from environment variables named like its fields, upper-cased."""
    given = {field.name: environ[field.name.upper()] for field in msgspec.structs.fields(kind) if environ.get(field.name.upper(), "") != ""}
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as wrong:
        raise SettingsRefused(f"settings of {kind.__module__.split('.')[1]}: {wrong}") from None
