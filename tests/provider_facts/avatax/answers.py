"""Answers of AvaTax as they were recorded: lines with what was sent and answered, one transaction whole, and errors."""

from typing import Any, NamedTuple


class Line(NamedTuple):
    """A recorded line: its amount and whether its tax was in it, the rates, and what was answered."""

    source: str
    amount: float
    included: bool
    # JurisTypeId, rate, tax of each detail.
    details: list[tuple[str, float, float]]
    line_amount: float
    tax: float


PENNSYLVANIA = ("0.06", "0.02", "0", "0")
LINES = {
    "added": Line("recorded, californian_stock_location", 10.0, False, [("STA", 0.06, 0.6), ("CTY", 0.02, 0.2)], 10.0, 0.8),
    # What is over a cent is left out of the last detail: 2 % of 9.26 are 0.19.
    "included": Line("recorded, tax_included/single_line_item", 10.0, True, [("STA", 0.06, 0.56), ("CTY", 0.02, 0.18)], 9.26, 0.74),
    "included, 5": Line("recorded, tax_included/line_item_and_shipment", 5.0, True, [("STA", 0.06, 0.28), ("CTY", 0.02, 0.09)], 4.63, 0.37),
    "included, 20": Line("recorded, tax_included/multiple_line_items", 20.0, True, [("STA", 0.06, 1.11), ("CTY", 0.02, 0.37)], 18.52, 1.48),
    "included, 30": Line("recorded, tax_included/multiple_line_items", 30.0, True, [("STA", 0.06, 1.67), ("CTY", 0.02, 0.55)], 27.78, 2.22),
    "refunded": Line("recorded, refund/partial_refund_with_refund", -10.0, False, [("STA", 0.06, -0.6), ("CTY", 0.02, -0.2)], -10.0, -0.8),
}


def detail(juris: str, level: str, **facts: Any) -> dict[str, Any]:
    """A detail as it was recorded, whole; the rest of it is a rate without tax."""
    return {
        "id": 0,
        "transactionLineId": 0,
        "transactionId": 0,
        "country": "US",
        "region": "CA",
        "exemptAmount": 0.0,
        "jurisCode": "06",
        "jurisName": "CALIFORNIA",
        "stateAssignedNo": "",
        "jurisType": juris,
        "jurisdictionType": level,
        "nonTaxableAmount": 0.0,
        "rate": 0.06,
        "tax": 0.0,
        "taxableAmount": 0.0,
        "taxType": "Sales",
        "taxSubTypeId": "S",
        "taxName": "CA STATE TAX",
        "taxAuthorityTypeId": 45,
        "taxCalculated": 0.0,
        "rateType": "General",
        "rateTypeCode": "G",
        "unitOfBasis": "PerCurrencyUnit",
        "isNonPassThru": False,
        **facts,
    }


def line(amount: float, *details: dict[str, Any], **facts: Any) -> dict[str, Any]:
    """A line of an answer with its details."""
    return {
        "id": 0,
        "transactionId": 0,
        "lineNumber": "0",
        "description": "Product #36 - 5913",
        "discountAmount": 0.0,
        "exemptAmount": 0.0,
        "exemptCertId": 0,
        "isItemTaxable": True,
        "itemCode": "SKU-36",
        "lineAmount": amount,
        "quantity": 1.0,
        "reportingDate": "2019-09-20",
        "tax": 0.0,
        "taxableAmount": 0.0,
        "taxCalculated": 0.0,
        "taxCode": "P0000000",
        "taxCodeId": 8087,
        "taxDate": "2019-09-20",
        "taxIncluded": False,
        "details": list(details),
        "nonPassthroughDetails": [],
        "hsCode": "",
        "costInsuranceFreight": 0.0,
        "vatCode": "",
        "vatNumberTypeId": 0,
        **facts,
    }


# recorded, californian_stock_location: a transaction whole, but its addresses and summary.
TRANSACTION: dict[str, Any] = {
    "id": 0,
    "code": "R850786960",
    "companyId": 848107,
    "date": "2019-09-20",
    "status": "Temporary",
    "type": "SalesOrder",
    "currencyCode": "USD",
    "customerVendorCode": "corinne",
    "customerCode": "corinne",
    "reconciled": False,
    "referenceCode": "R850786960",
    "totalAmount": 15.0,
    "totalExempt": 0.0,
    "totalDiscount": 0.0,
    "totalTax": 1.2,
    "totalTaxable": 15.0,
    "totalTaxCalculated": 1.2,
    "adjustmentReason": "NotAdjusted",
    "locked": False,
    "version": 1,
    "exchangeRateEffectiveDate": "2019-09-20",
    "exchangeRate": 1.0,
    "modifiedDate": "2019-09-20T09:03:30.4748701Z",
    "modifiedUserId": 356147,
    "taxDate": "2019-09-20T00:00:00",
    "lines": [line(10.0, detail("STA", "State"))],
}

# What a line was answered, and what is read of it: the rows' level, name, region, percent and amount, and the reason.
READ: dict[str, tuple[dict[str, Any], list[tuple[str, str, str, str, int]], str]] = {
    # BoltApp/bolt-magento2, Test/Unit/Plugin/ClassyLlama/AvaTax (a recorded answer of 2021-05-27, San Francisco to Los Angeles).
    "districts share the name of a tax": (
        line(
            34.0,
            detail("STA", "State", tax=2.04, taxableAmount=34.0),
            detail("CTY", "County", jurisName="LOS ANGELES", taxName="CA COUNTY TAX", rate=0.0025, tax=0.09, taxableAmount=34.0),
            detail("STJ", "Special", jurisName="SAN FRANCISCO CO", taxName="CA SPECIAL TAX", rate=0.0125, tax=0.43, taxableAmount=34.0),
            detail("STJ", "Special", jurisName="LOS ANGELES CO", taxName="CA SPECIAL TAX", rate=0.01, tax=0.34, taxableAmount=34.0),
            tax=2.9,
            taxableAmount=34.0,
        ),
        [
            ("state", "CA STATE TAX", "US-CA", "6", 204),
            ("county", "CA COUNTY TAX", "US-CA", "0.25", 9),
            ("district", "SAN FRANCISCO CO", "US-CA", "1.25", 43),
            ("district", "LOS ANGELES CO", "US-CA", "1", 34),
        ],
        "standard_rated",
    ),
    # recorded, before JurisdictionType was answered (it is since 18.1).
    "an older answer": (
        line(
            10.0,
            {**detail("CIT", "City", tax=0.6, taxableAmount=10.0, taxName="CA CITY TAX"), "jurisdictionType": None},
            tax=0.6,
            taxableAmount=10.0,
        ),
        [("city", "CA CITY TAX", "US-CA", "6", 60)],
        "standard_rated",
    ),
    # The same answer's shipping, FR020100: rates are said, and exemptAmount of the line is not a customer's.
    "freight that is not taxed": (
        line(5.0, detail("STA", "State", nonTaxableAmount=5.0), exemptAmount=5.0, isItemTaxable=False, taxCode="FR020100"),
        [("country", "combined", "US-WA", "0", 0)],
        "not_subject_to_tax",
    ),
    # recorded, Certification/Exempt_sales.
    "a customer who is exempt": (
        line(10.0, detail("STA", "State", exemptAmount=10.0, rate=0.04), exemptAmount=10.0, isItemTaxable=False),
        [("country", "combined", "US-WA", "0", 0)],
        "customer_exempt",
    ),
    # recorded, gst/us_to_canada.
    "a country's tax": (
        line(
            10.0,
            detail("CNT", "Country", country="CA", region="CA", taxName="CANADA GST/TPS", rate=0.05, tax=0.5, taxableAmount=10.0),
            tax=0.5,
            taxableAmount=10.0,
        ),
        [("country", "CANADA GST/TPS", "", "5", 50)],
        "standard_rated",
    ),
    # recorded, vat/us_to_europe: without nexus.
    "a country without nexus": (
        line(
            10.0,
            detail("CNT", "Country", country="GB", region="GB", rate=0.0, nonTaxableAmount=10.0),
            exemptAmount=10.0,
            isItemTaxable=False,
        ),
        [("country", "combined", "US-WA", "0", 0)],
        "not_subject_to_tax",
    ),
    # models, TransactionLineDetailModel.isFee: "the rate: 15 represents a fee of $15.00"; Colorado's retail delivery fee.
    "a fee": (
        line(
            0.0,
            detail("STA", "State", region="CO", taxName="Retail Delivery Fee", isFee=True, rate=15.0, tax=15.0, unitOfBasis="FlatAmount"),
            tax=15.0,
        ),
        [("state", "Retail Delivery Fee", "US-CO", "0", 1_500)],
        "standard_rated",
    ),
}


def error(code: str, number: int, message: str, *, fault: str = "Client", top: str = "") -> dict[str, Any]:
    """An error as it is answered since 2024."""
    page = f"https://developer.avalara.com/avatax/errors/{code}"
    found = {
        "code": code,
        "number": number,
        "message": message,
        "description": message,
        "faultCode": fault,
        "helpLink": page,
        "severity": "Error",
    }
    return {"error": {"code": top or code, "message": message, "target": "Unknown", "details": [found]}}


ZIP_INVALID = "Tax calculation cannot be determined. Zip is not valid for the state."
DOC_STATUS = "DocStatus is invalid for this operation."
# The status, the error, and what the adapter makes of it.
ERRORS: dict[str, tuple[int, dict[str, Any], str]] = {
    "ZIP": (400, error("GetTaxError", 300, ZIP_INVALID, fault="GetTaxError"), "refused"),
    "committed": (400, error("GetTaxError", 300, DOC_STATUS, fault="GetTaxError"), "refused"),
    "no line": (400, error("MissingLine", 311, "Transactions must have at least one line."), "refused"),
    "too long": (400, error("StringLengthError", 13, "Field 'taxCode' has an invalid length."), "refused"),
    # gh:boomerdigital/solidus_avatax_certified/issues/127.
    "a model": (400, error("MaxStringLengthError", 14, "Field 'itemCode' has an invalid length.", top="ModelStateInvalid"), "refused"),
    "not there": (404, error("EntityNotFoundError", 4, "Transaction not found."), "absent"),
    # avatax/errors, 1: "a server configuration problem"; a 401 has no number and no severity.
    "server": (400, error("ServerConfiguration", 1, "No.", fault="Server"), "unknown"),
    "key": (401, error("AuthenticationException", 30, "Authentication failed."), "unknown"),
}
