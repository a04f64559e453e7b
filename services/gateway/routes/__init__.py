"""The HTTP API: routes, who may use them, and how every answer and every problem is written."""

from litestar import Litestar, Router
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.types import ControllerRouterHandler

from services.gateway.handlers.gateway import Gateway
from services.gateway.routes import customers, docs, operations, orders, payments
from services.gateway.routes.answers import problem_handlers
from shared.health import Check, health_routes

BODY_MAX_BYTES = 256 * 1024

DESCRIPTION = (
    "Every mutation needs an `Idempotency-Key`: the same key with the same request gets the same answer, byte for byte. "
    "Amounts are integers of minor units. Errors are `application/problem+json` (RFC 9457) with `code`, `outcome` and `retry`."
)


def api(gateway: Gateway, checks: dict[str, Check]) -> Litestar:
    """Put the HTTP API together."""
    version_1: list[ControllerRouterHandler] = [*orders.ROUTES, *payments.ROUTES, *operations.ROUTES, *customers.ROUTES]
    app = Litestar(
        [Router("/api/v1", route_handlers=version_1), *docs.ROUTES, *health_routes(checks)],
        exception_handlers=problem_handlers(),
        request_max_body_size=BODY_MAX_BYTES,
        openapi_config=OpenAPIConfig(
            title="Tender",
            version="1",
            description=DESCRIPTION,
            path="/openapi",
            render_plugins=[JsonRenderPlugin()],
            components=Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")}),
            security=[{"key": []}],
        ),
        logging_config=None,
        debug=False,
    )
    app.state.gateway = gateway
    return app
