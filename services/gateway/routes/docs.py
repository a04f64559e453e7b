"""The API's documentation as a page that needs nothing from elsewhere: no script, no font, no network."""

import asyncio
from html import escape
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Response, Router, get
from litestar.serialization import encode_json

from shared.received import HttpRequest

OPENAPI = "/openapi"
DOCUMENTS = (OPENAPI, f"{OPENAPI}/openapi.json")

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881}
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem}
code,pre{font:14px/1.45 ui-monospace,monospace}pre{background:var(--soft);padding:.75rem;overflow:auto;border-radius:6px}
details{border:1px solid var(--line);border-radius:6px;margin:.4rem 0}summary{padding:.5rem .75rem;cursor:pointer}
details>div{padding:0 .75rem .5rem}table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid var(--line);
text-align:left;padding:.25rem .5rem;vertical-align:top}.m{display:inline-block;min-width:4rem;font-weight:700}.old{opacity:.6}
"""
METHODS = ("get", "put", "post", "patch", "delete")


class _Documentation(msgspec.Struct, frozen=True):
    document: bytes
    page: bytes


@get("/docs", include_in_schema=False, media_type=MediaType.HTML)
async def docs(request: HttpRequest) -> Response[bytes]:
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response((await _documentation(request.app)).page, media_type=MediaType.HTML, headers=headers)


def openapi() -> Router:
    """Make the router to which the framework adds its document, which is served as it was written here."""
    return Router(OPENAPI, route_handlers=[], include_in_schema=False, before_request=_document)


async def _document(request: HttpRequest) -> bytes | None:
    asked = request.scope["path"].rstrip("/") in DOCUMENTS
    return (await _documentation(request.app)).document if asked else None


async def _documentation(app: Litestar) -> _Documentation:
    """Write it once, and in a thread: it is a third of a second of work and more, for which nobody's payment waits."""
    written: asyncio.Task[_Documentation] | None = app.state.get("documentation")
    if written is None:
        written = app.state.documentation = asyncio.create_task(asyncio.to_thread(_write, app))
    return await asyncio.shield(written)


def _write(app: Litestar) -> _Documentation:
    document = app.openapi_schema.to_schema()
    return _Documentation(document=encode_json(document), page=_page(document).encode())


def _page(document: dict[str, Any]) -> str:
    schemas = document.get("components", {}).get("schemas", {})
    groups: dict[str, list[str]] = {}
    for path, item in document["paths"].items():
        for method in METHODS:
            if method in item:
                operation = item[method]
                groups.setdefault((operation.get("tags") or ["Other"])[0], []).append(_operation(method, path, operation))
    info = document["info"]
    about = escape((info.get("description") or "").replace("`", ""))
    body = "".join(f"<h2>{escape(name)}</h2>{''.join(parts)}" for name, parts in sorted(groups.items()))
    types = "".join(_schema(name, schema) for name, schema in sorted(schemas.items()))
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(info['title'])} API</title><style>{STYLE}</style><h1>{escape(info['title'])} API</h1>"
        f"<p>{about}</p><p>Machine-readable: <a href='/openapi/openapi.json'>openapi.json</a></p>"
        f"{body}<h2>Types</h2>{types}</html>"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    rows = "".join(
        f"<tr><td><code>{escape(p['name'])}</code><td>{escape(p['in'])}{' (required)' if p.get('required') else ''}"
        f"<td>{escape(p.get('description') or '')}"
        for p in operation.get("parameters", [])
    )
    request = "".join(
        f"<p>Body: {_type(media.get('schema', {}))}</p>" for media in operation.get("requestBody", {}).get("content", {}).values()
    )
    answers = "".join(_answer(code, response) for code, response in sorted(operation["responses"].items()))
    old = " class=old" if operation.get("deprecated") else ""
    return (
        f"<details><summary{old}><span class=m>{method.upper()}</span><code>{escape(path)}</code> — "
        f"{escape(operation.get('summary') or '')}"
        f"</summary><div>{f'<table>{rows}</table>' if rows else ''}{request}<table>{answers}</table></div></details>"
    )


def _answer(code: str, response: dict[str, Any]) -> str:
    content = response.get("content", {})
    kinds = ", ".join(f"{_type(media.get('schema', {}))} <small>{escape(kind)}</small>" for kind, media in content.items())
    return f"<tr><td><b>{code}</b><td>{kinds}<td>{escape(response.get('description') or '')}"


def _schema(name: str, schema: dict[str, Any]) -> str:
    required = set(schema.get("required", []))
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{'' if field in required else ' ?'}<td>{_type(kind)}<td>{escape(_limits(kind))}"
        for field, kind in schema.get("properties", {}).items()
    )
    values = ", ".join(f"<code>{escape(str(v))}</code>" for v in schema.get("enum", []))
    about = escape(schema.get("description") or "")
    inner = f"<p>{about}</p>{values}<table>{rows}</table>"
    return f"<details id='{escape(name)}'><summary><code>{escape(name)}</code></summary><div>{inner}</div></details>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = str(schema["$ref"]).rsplit("/", 1)[-1]
        return f"<a href='#{escape(name)}'>{escape(name)}</a>"
    for choice in ("oneOf", "anyOf"):
        if choice in schema:
            return " or ".join(_type(each) for each in schema[choice])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = schema.get("type", "any")
    return escape(kind if isinstance(kind, str) else " or ".join(kind)) + (f" ({escape(schema['format'])})" if "format" in schema else "")


def _limits(schema: dict[str, Any]) -> str:
    names = ("description", "minimum", "maximum", "exclusiveMinimum", "minLength", "maxLength", "minItems", "maxItems", "pattern")
    return ", ".join(f"{name} {schema[name]}" if name != "description" else str(schema[name]) for name in names if name in schema)


ROUTES = [docs]
