"""The tax export: what was made before, and the file of a period."""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, get_args

from litestar import Response, get
from litestar.params import QueryParameter
from litestar.response import Stream

from services.gateway.console.pages import FINANCE, Facts, ask, page, signed_in
from services.gateway.routes.taxes import ExportFormat, exported
from shared.contracts.fulfillment.tax import ExportsView, ListExports
from shared.received import HttpRequest


@get("/tax", before_request=signed_in)
async def list_exports(
    request: HttpRequest,
    made: Annotated[str, QueryParameter(name="made", max_length=20, required=False)] = "",
) -> Response[Any]:
    async def load() -> Facts:
        exports = await ask(request, ListExports(), ExportsView)
        last_day = datetime.now(UTC).date().replace(day=1) - timedelta(days=1)
        return {
            "exports": [each for each in exports.exports if made in ("", each.format)],
            "formats": get_args(ExportFormat),
            "first_day": last_day.replace(day=1).isoformat(),
            "last_day": last_day.isoformat(),
        }

    return await page(request, "tax.html", load)


@get("/tax/export", before_request=FINANCE)
async def export(
    request: HttpRequest,
    first_day: Annotated[date, QueryParameter(name="from")],
    last_day: Annotated[date, QueryParameter(name="to")],
    format: Annotated[ExportFormat, QueryParameter(name="format", required=False)] = "itemized",
) -> Stream:
    return await exported(request, first_day, last_day, format)


ROUTES = [list_exports, export]
