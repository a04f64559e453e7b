"""Settings: frozen structs read once from the environment; everything that is wrong with them is reported at once, by variable."""

import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin
from urllib.parse import parse_qsl, urlsplit

import msgspec
from msgspec import Meta
from msgspec.structs import FieldInfo

from shared.errors import Clear
from shared.server_urls import parts_of

HTTP = ("http", "https")
PORT_MAX = 65_535
# Parameters of the servers' URLs that name files (libpq's, aiormq's).
TLS_FILES = frozenset({"sslrootcert", "sslcert", "sslkey", "sslcrl", "cafile", "certfile", "keyfile"})
# What a setting's value is measured in, by how its name ends.
UNITS = {"_seconds": "seconds", "_hours": "hours", "_days": "days", "_per_second": "a second"}
# A name, an IPv4 address, or an IPv6 address in brackets; a name beyond ASCII is written in its ASCII form.
HOST = re.compile(r"[A-Za-z0-9._~%-]+|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9._~-]+)?\]")
Check = Callable[[str], str | None]


class SettingsRefused(Clear):
    """The environment lacks settings or holds some that cannot be used; the text has one line for each, by its variable."""


def about(text: str, *, unit: str = "", secret: bool = False, form: str = "text", check: Check | None = None, **limits: Any) -> Meta:
    """Describe a setting: what it does, its unit and msgspec's limits; for a text its form, and a check that says what is wrong."""
    described: Meta = Meta(description=text, extra={"unit": unit, "secret": secret, "form": form, "check": check}, **limits)
    return described


def url(text: str, *schemes: str, secret: bool = False) -> Meta:
    """Describe a setting that is a URL."""
    beginnings = " or ".join(f"{scheme}://" for scheme in schemes)

    def check(value: str) -> str | None:
        # What follows the scheme may hold a password, and without a scheme all of it may be one.
        scheme, found, rest = value.partition("://")
        if not found or scheme.lower() not in schemes:
            return f"must begin with {beginnings} (got {f'{scheme}://…' if found else 'no ://'})"
        if not rest.strip("/"):
            return "names no host"
        return _http_trouble(value) if schemes == HTTP else _server_trouble(value)

    return about(text, secret=secret, form=f"URL, {beginnings}", check=check)


def _http_trouble(value: str) -> str | None:
    # What Python says of a URL may quote a password in it.
    try:
        parts = urlsplit(value)
        return None if parts.hostname and (parts.port is None or parts.port) else "names no host"
    except ValueError:
        return "is not a URL: its host or port cannot be read"


def _server_trouble(value: str) -> str | None:
    parts = parts_of(value)
    if not parts.login and "@" in parts.rest:
        return "has its @ behind the host: write /, ? and # of a password as %2F, %3F and %23"
    if trouble := _hosts_trouble(parts.hosts, may_be_empty=not parts.scheme.startswith("amqp")):
        return trouble
    unreadable = [f"{name}={file}" for name, file in parse_qsl(parts.query) if name in TLS_FILES and not os.access(file, os.R_OK)]
    return f"names a file that cannot be read: {', '.join(unreadable)}" if unreadable else None


def _hosts_trouble(hosts: Sequence[str], *, may_be_empty: bool) -> str | None:
    # What stands where a host and a port should may be a user and a password without their @, so it is not quoted.
    if may_be_empty and not any(hosts):
        return None  # A socket of this machine, by a parameter.
    for number, each in enumerate(hosts, start=1):
        host, colon, port = each.rpartition(":") if re.search(r":[^\]]*$", each) else (each, "", "")
        if not HOST.fullmatch(host) or (colon and not _is_port(port)):
            return f"host {number} is not written as host:port, with a port from 1 to {PORT_MAX}"
    return None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text) <= PORT_MAX


def several(text: str, choices: Collection[str]) -> Meta:
    """Describe a setting that is a list of choices, separated by commas."""
    known = ", ".join(choices)

    def check(value: str) -> str | None:
        unknown = [each for each in value.split(",") if each not in choices]
        return f"must be a list of {known}, separated by commas (got '{value}')" if unknown else None

    return about(text, form=f"list of {known}", check=check)


class EnvironmentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a process, each field an environment variable of its name in capitals."""

    def problems(self) -> Iterator[str]:
        """Say what is wrong with settings together, each beginning with the variable's name."""
        return iter(())


class BusSettings(EnvironmentSettings, frozen=True, kw_only=True):
    """What every service needs to reach its database, the broker and its watchers."""

    database_url: Annotated[
        str,
        url(
            "The database, with a login role of the service's own; several hosts and TLS as in connections.md.",
            "postgresql",
            "postgres",
            secret=True,
        ),
    ]
    amqp_url: Annotated[
        str, url("The broker, with a user of the service's own; several hosts and TLS as in connections.md.", "amqp", "amqps", secret=True)
    ]
    http_host: Annotated[str, about("The address that the API is served on (gateway, webhooks).")] = "127.0.0.1"
    http_port: Annotated[
        int,
        about(
            "The public port of the API (gateway, webhooks; the others have none); 0 takes any.",
            unit="port",
            ge=0,
            le=PORT_MAX,
        ),
    ] = 0
    monitoring_host: Annotated[
        str,
        about(
            "The address that health and metrics are served on: one that the orchestrator and Prometheus reach, and the public does not."
        ),
    ] = "127.0.0.1"
    monitoring_port: Annotated[
        int, about("The private port of `/health/live`, `/health/ready` and `/metrics`; 0 takes any.", unit="port", ge=0, le=PORT_MAX)
    ] = 0
    http_connections_max: Annotated[
        int,
        about("The most connections of HTTP clients at a time, fewer where the process may open few files.", unit="connections", ge=1),
    ] = 4_000
    http_connections_per_address_max: Annotated[
        int,
        about(
            "The most of them from one address (IPv6: one /64 network); raise it to the above behind a proxy.",
            unit="connections",
            ge=1,
        ),
    ] = 1_000
    log_level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], about("The least level that is logged, as JSON lines on stderr.")
    ] = "INFO"
    database_connections: Annotated[
        int, about("The most connections to the database that one process opens; see connections.md for the sum.", unit="connections", ge=1)
    ] = 9
    database_cached_statements: Annotated[
        int,
        about(
            "Prepared statements that a connection caches; -1 is 200, and 0 where a pooler such as PgBouncer is found in between.",
            unit="statements",
            ge=-1,
        ),
    ] = -1
    prefetch: Annotated[
        int,
        about(
            "Messages of one store that a process handles at the same time, and a third more of others.",
            unit="messages",
            ge=1,
            le=PORT_MAX,
        ),
    ] = 64
    handler_timeout_seconds: Annotated[float, about("How long handling a message may take before it is tried again.", gt=0)] = 120
    shutdown_grace_seconds: Annotated[float, about("How long a stopping process waits for the work in hand.", ge=0)] = 20
    shutdown_notice_seconds: Annotated[
        float,
        about(
            "How long a stopping process that serves an API takes requests although it is not ready, for load balancers to see it.", ge=0
        ),
    ] = 5.0
    write_pause_seconds: Annotated[
        float, about("How long a write waits for others to be written with it, where no caller waits for its result.", ge=0)
    ] = 0.0
    group_pause_seconds: Annotated[float, about("How long an event waits for others to be handled with it.", ge=0)] = 0.05
    outbox_head_start_seconds: Annotated[
        float, about("How long the writer of an event may take to publish it before the outbox relay does.", ge=0)
    ] = 5.0
    otel_exporter_otlp_endpoint: Annotated[str, url("Where traces are sent over OTLP/HTTP; none sends none.", *HTTP)] = ""
    trace_sample_ratio: Annotated[
        float, about("The share of requests that are traced, of those whose callers do not trace them.", unit="share", ge=0, le=1)
    ] = 0.05
    traces_kept_hours: Annotated[float, about("How long traces are kept in the own database; 0 keeps none.", ge=0)] = 24.0


S = TypeVar("S", bound=EnvironmentSettings)


def variable_of(field: FieldInfo) -> str:
    """Tell a setting's environment variable."""
    return field.name.upper()


def meta_of(field: FieldInfo) -> Meta:
    """Tell what a setting's declaration says of it."""
    return next((each for each in get_args(field.type)[1:] if isinstance(each, Meta)), Meta())


def has_file(kind: type[EnvironmentSettings], field: FieldInfo) -> bool:
    """Tell whether a setting can also be read from the file that `<its variable>_FILE` names, as secrets can."""
    return _extra(field)["secret"] and f"{field.name}_file" not in kind.__struct_fields__


def expected(field: FieldInfo) -> str:
    """Say in words which values a setting takes."""
    plain, meta = _plain(field), meta_of(field)
    if plain is bool:
        return "true or false"
    if choices := _choices(plain):
        return f"one of {', '.join(choices)}"
    if plain is str:
        form = str(_extra(field)["form"])
        return f"{form} of at least {meta.min_length} characters" if meta.min_length else form
    limits = [
        f"{word} {limit}" for word, limit in (("more than", meta.gt), ("at least", meta.ge), ("at most", meta.le)) if limit is not None
    ]
    return ", ".join([f"a {'whole number' if plain is int else 'number'} ({unit_of(field)})", *limits])


def unit_of(field: FieldInfo) -> str:
    """Tell what a number is measured in, as its declaration or the end of its name says."""
    return str(_extra(field)["unit"]) or next((unit for ending, unit in UNITS.items() if field.name.endswith(ending)), "")


def load(kind: type[S], environ: Mapping[str, str]) -> S:
    """Read a settings struct from environment variables named like its fields; raises SettingsRefused with everything that is wrong."""
    values: dict[str, Any] = {}
    problems = []
    for field in msgspec.structs.fields(kind):
        try:
            text = _given(kind, field, environ)
            if text:
                values[field.name] = _read(field, text)
            elif field.required:
                raise SettingsRefused("is required and not set")
        except SettingsRefused as refused:
            problems.append(f"{variable_of(field)}: {refused}")
    # What is wrong with settings together is asked of those that can be read.
    missing = {field.name: "" for field in msgspec.structs.fields(kind) if field.required}
    settings = kind(**{**missing, **values})
    problems += settings.problems()
    if problems:
        raise SettingsRefused("\n".join(problems))
    return settings


def _given(kind: type[EnvironmentSettings], field: FieldInfo, environ: Mapping[str, str]) -> str:
    text, name = environ.get(variable_of(field), ""), environ.get(f"{variable_of(field)}_FILE", "")
    if not name or not has_file(kind, field):
        return text
    if text:
        raise SettingsRefused(f"is set, and {variable_of(field)}_FILE too; only one of them may be")
    try:
        return Path(name).read_text().strip()
    except (OSError, UnicodeDecodeError) as failed:
        reason = failed.strerror if isinstance(failed, OSError) else "it is not text"
        raise SettingsRefused(f"{variable_of(field)}_FILE names {name}, which cannot be read: {reason}") from None


def _read(field: FieldInfo, text: str) -> Any:
    extra = _extra(field)
    wrong = f"must be {expected(field)}" + ("" if extra["secret"] else f" (got '{_masked(text)}')")
    try:
        value = msgspec.convert(text, field.type, strict=False)
    except msgspec.ValidationError:
        raise SettingsRefused(wrong) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsRefused(wrong)
    if extra["check"] is not None and (trouble := extra["check"](value)):
        raise SettingsRefused(trouble)
    return value


def _masked(text: str) -> str:
    """Hide what may be a password in a URL."""
    scheme, found, rest = text.partition("://")
    return f"{scheme}://…@{rest.rpartition('@')[2]}" if found and "@" in rest else text


def _plain(field: FieldInfo) -> Any:
    return get_args(field.type)[0] if get_origin(field.type) is Annotated else field.type


def _choices(plain: Any) -> list[str]:
    if get_origin(plain) is Literal:
        return list(get_args(plain))
    return [str(each.value) for each in plain] if isinstance(plain, type) and issubclass(plain, Enum) else []


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    return {"unit": "", "secret": False, "form": "text", "check": None, **(meta_of(field).extra or {})}
