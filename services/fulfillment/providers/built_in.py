"""The built-in tax engine behind the same interface as any other."""

from services.fulfillment.domain.tax.engine import Row, compute
from services.fulfillment.domain.tax.sale import rules_of
from services.fulfillment.providers import TaxRequest


class BuiltIn:
    """Works tax out from the store's own rules."""

    name = "built_in"
    remote = False

    async def quote(self, request: TaxRequest) -> list[Row]:
        """Say what the tax comes to; raises NoTaxRule where a tax is due that no rule knows."""
        return compute(request.lines, rules_of(request.sale, request.rules, request.lines))

    async def close(self) -> None:
        """Nothing is open."""
