"""The console: pages for whoever looks after it all, served by the gateway, rendered here and live where a browser allows it."""

from litestar import Router

from services.gateway.console import (
    actions,
    attention,
    calls,
    events,
    keys,
    letters,
    orders,
    overview,
    reconciliation,
    sessions,
    shipments,
    taxes,
    traces,
)
from services.gateway.console.assets import asset
from services.gateway.console.pages import problem_handlers
from services.gateway.routes.answers import declares_access

PAGES = [
    asset,
    *sessions.ROUTES,
    *overview.ROUTES,
    *orders.ROUTES,
    *attention.ROUTES,
    *events.ROUTES,
    *letters.ROUTES,
    *shipments.ROUTES,
    *taxes.ROUTES,
    *reconciliation.ROUTES,
    *calls.ROUTES,
    *traces.ROUTES,
    *keys.ROUTES,
    *actions.ROUTES,
]
for page in PAGES:
    assert declares_access(page), f"{page.paths} does not say who may open it"
ROUTES = [Router("/console", route_handlers=PAGES, exception_handlers=problem_handlers(), include_in_schema=False)]
