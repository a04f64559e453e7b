"""Certificates judged once for every engine: which lines they free where an order goes, and which of them counted in the end."""

from collections.abc import Sequence

from services.fulfillment.domain.tax.engine import Line, Row
from services.fulfillment.domain.tax.rules import Reason
from services.fulfillment.domain.tax.sale import Sale
from shared.errors import Refusal

# Where only regions tax sales, so that a region's certificate frees a line from all there is.
TAXED_BY_REGIONS_ALONE = frozenset({"US"})


class CertificateUnsupported(Refusal):
    """A certificate frees goods from a region's tax and not from the country's, which no tax provider can express."""

    code = "certificate-unsupported"
    title = "The tax provider cannot apply this certificate"
    status = 422


def certificates_of(sale: Sale, lines: Sequence[Line]) -> tuple[str, ...]:
    """Name for each line the certificate that frees it where the order goes; empty where none does. Raises CertificateUnsupported."""
    there = sale.ship_to
    found = []
    for line in lines:
        whole = sale.certificate(there.country, "", line.tax_code)
        regional = "" if whole or not there.region else sale.certificate(there.country, there.region, line.tax_code)
        if regional and there.country not in TAXED_BY_REGIONS_ALONE:
            raise CertificateUnsupported(
                f"{regional} is for {there.region} alone, and {there.country} taxes the sale, too; the built-in engine distinguishes them.",
                {"certificate": regional, "region": there.region},
            )
        found.append(whole or regional)
    return tuple(found)


def counted(sale: Sale, lines: Sequence[Line], rows: Sequence[Row]) -> list[tuple[int, str]]:
    """Give the certificates because of which lines bear no tax, each with its line."""
    exempt = [row for row in rows if row.reason is Reason.CUSTOMER_EXEMPT]
    found = [(row.line, sale.certificate(row.country, row.region, lines[row.line].tax_code)) for row in exempt]
    return list(dict.fromkeys((line, certificate) for line, certificate in found if certificate))
