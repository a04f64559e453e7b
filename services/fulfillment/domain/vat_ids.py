"""VAT identification numbers, as far as they can be checked offline: their form and check digits."""

import msgspec
from stdnum import get_cc_module
from stdnum.eu import vat
from stdnum.exceptions import ValidationError

from services.fulfillment.domain.territories import EU_GOODS

# VAT numbers name Greece otherwise than ISO 3166-1 does.
GREECE = "EL"
# Whose numbers the businesses of a territory bear: Switzerland and Liechtenstein have one register, the United Kingdom and Man another.
REGISTERS = {"IM": "GB", "LI": "CH"}
COUNTRY_LETTERS = 2
# What is no valid number there is none anywhere; Monaco's are French, and "EU" names no country.
NOT_FOREIGN = EU_GOODS | {GREECE, "EU", "MC"}


class VatId(msgspec.Struct, frozen=True, kw_only=True):
    """A buyer's number and whether it can be one."""

    typed: str
    valid: bool
    # ISO 3166-1, or XI (Northern Ireland); empty where the number is not valid.
    country: str = ""
    number: str = ""


def checked(typed: str, *, country: str = "") -> VatId | None:
    """Check a number's form and check digits offline; one without its country's letters is read as the buyer's country writes it."""
    if not typed.strip():
        return None
    try:
        number = str(vat.validate(typed))
    except ValidationError:
        return _foreign(typed, country) or VatId(typed=typed, valid=False)
    return VatId(typed=typed, valid=True, country="GR" if number[:2] == GREECE else number[:2], number=number)


def _foreign(typed: str, country: str) -> VatId | None:
    """Read a number of a country outside the EU."""
    letters = "".join(each for each in typed.upper() if each.isalnum())
    named = letters[:COUNTRY_LETTERS]
    for code, number in ((named, letters), (named, letters[COUNTRY_LETTERS:]), (REGISTERS.get(country, country), letters)):
        if code.isalpha() and code not in NOT_FOREIGN and (found := _validated(code, number)):
            return VatId(typed=typed, valid=True, country=code, number=found if found.startswith(code) else f"{code}{found}")
    return None


def _validated(country: str, number: str) -> str:
    """Write a number as its country does; empty where it cannot be one."""
    module = get_cc_module(country.lower(), "vat")
    try:
        return "" if module is None else str(module.validate(number))
    except ValidationError:
        return ""
