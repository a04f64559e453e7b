"""VAT identification numbers, as far as they can be checked without asking anybody: their form and check digits."""

import msgspec
from stdnum.eu import vat
from stdnum.exceptions import ValidationError

# VAT numbers name Greece otherwise than ISO 3166-1 does.
GREECE = "EL"


class VatId(msgspec.Struct, frozen=True, kw_only=True):
    """A buyer's number and whether it can be one."""

    typed: str
    valid: bool
    # ISO 3166-1; empty where the number is not valid.
    country: str = ""
    number: str = ""


def checked(typed: str) -> VatId | None:
    """Check a number's form and check digits offline; nothing was typed, nothing is checked."""
    if not typed.strip():
        return None
    try:
        number = str(vat.validate(typed))
    except ValidationError:
        return VatId(typed=typed, valid=False)
    country = "GR" if number[:2] == GREECE else number[:2]
    return VatId(typed=typed, valid=True, country=country, number=number)
