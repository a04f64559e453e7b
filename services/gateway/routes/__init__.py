"""The HTTP API: routes, who may use them, and how every answer and every problem is written."""

from collections.abc import Sequence

from litestar import Litestar, Router
from litestar.config.cors import CORSConfig
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ControllerRouterHandler

from services.gateway.handlers.gateway import Gateway
from services.gateway.handlers.observing import Lookout
from services.gateway.routes import (
    credentials,
    customers,
    dead_letters,
    docs,
    merchants,
    operations,
    orders,
    payments,
    reconciliation,
    shipping,
    taxes,
    watching,
    webhooks,
)
from services.gateway.routes.answers import Documented, declares_access, problem_handlers, roles_text
from shared.received import Received

BODY_MAX_BYTES = 256 * 1024

DESCRIPTION = (
    "Every mutation needs an `Idempotency-Key`: the same key with the same request gets the same answer, byte for byte. "
    "Amounts are integers of minor units. Errors are `application/problem+json` (RFC 9457) with `code`, `outcome` and `retry`. "
    "An operator's key works in another store than its own with the header `Tender-Store: <id>`."
)


CORS_AGE_SECONDS = 600
# What a shopper's browser sends and may read.
CORS_REQUEST_HEADERS = ["Authorization", "Content-Type", "Idempotency-Key", "Prefer", "X-Correlation-Id"]
CORS_ANSWER_HEADERS = ["Idempotent-Replayed", "Location", "Operation-Id", "Retry-After", "X-Correlation-Id"]


def _cors(origins: str) -> CORSConfig | None:
    """Let browsers of these origins (separated by commas) call; none by default."""
    allowed = [origin.strip() for origin in origins.split(",") if origin.strip()]
    if not allowed:
        return None
    return CORSConfig(
        allow_origins=allowed,
        allow_methods=["GET", "POST"],
        allow_headers=CORS_REQUEST_HEADERS,
        expose_headers=CORS_ANSWER_HEADERS,
        max_age=CORS_AGE_SECONDS,
    )


def _openapi() -> OpenAPIConfig:
    return OpenAPIConfig(
        title="Tender",
        version="1",
        description=DESCRIPTION,
        openapi_router=docs.openapi(),
        render_plugins=[JsonRenderPlugin()],
        components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"key": []}],
    )


def api(gateway: Gateway, more: Sequence[ControllerRouterHandler] = ()) -> Litestar:
    """Put the HTTP API together."""
    version_1: list[ControllerRouterHandler] = [
        *orders.ROUTES,
        *payments.ROUTES,
        *operations.ROUTES,
        *customers.ROUTES,
        *webhooks.ROUTES,
        *merchants.ROUTES,
        *shipping.ROUTES,
        *taxes.ROUTES,
        *reconciliation.ROUTES,
        *dead_letters.ROUTES,
        *credentials.ROUTES,
        *watching.ROUTES,
    ]
    for route in version_1:
        assert isinstance(route, HTTPRouteHandler), "the API's routes are functions"
        assert declares_access(route), f"{route.paths} does not say who may call it"
        route.operation_class = Documented
        route.description = route.description or roles_text(route)
    shown = gateway.settings.api_docs
    app = Litestar(
        [Router("/api/v1", route_handlers=version_1), *(docs.ROUTES if shown else ()), *more],
        exception_handlers=problem_handlers(),
        request_max_body_size=BODY_MAX_BYTES,
        request_class=Received,
        cors_config=_cors(gateway.settings.cors_origins),
        openapi_config=_openapi() if shown else None,
        logging_config=None,
        debug=False,
    )
    app.state.gateway, app.state.lookout = gateway, Lookout(gateway)
    return app
