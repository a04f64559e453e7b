"""Where an address is, as far as taxes and tariffs look at it."""

import msgspec

from services.fulfillment.domain.postal import normalized
from services.fulfillment.domain.tax.rules import Place
from shared.contracts.orders import Address
from shared.regions import has_regions, in_form, needs_postal_code, region_of, region_of_postal_code

CODE_CHARACTERS_MAX = 3


class Located(msgspec.Struct, frozen=True, kw_only=True):
    """An address's place, and by what its region is known: as it is named, and as its postal code has it."""

    place: Place
    typed_region: str
    named_region: str
    postal_region: str

    @property
    def postal_code_fits(self) -> bool:
        """Tell whether the postal code has its country's form; where the country needs one, none does not fit."""
        code = self.place.postal_code
        return in_form(self.place.country, code) if code else not needs_postal_code(self.place.country)


def located(address: Address) -> Located:
    """Find an address's place, each field by itself; a region that is not understood is the one that the postal code lies in."""
    country, typed = address.country_code, address.country_area.strip()
    code = normalized(country, address.postal_code)
    named = region_of(country, typed) if has_regions(country) else _as_code(country, typed)
    by_code = region_of_postal_code(country, code)
    return Located(
        place=Place(country=country, region=named or by_code, postal_code=code),
        typed_region=typed,
        named_region=named,
        postal_region=by_code,
    )


def _as_code(country: str, typed: str) -> str:
    """Take what may be a code for one, where ISO 3166-2 has no regions."""
    return f"{country}-{typed.upper()}" if 1 <= len(typed) <= CODE_CHARACTERS_MAX and typed.isascii() and typed.isalnum() else ""
