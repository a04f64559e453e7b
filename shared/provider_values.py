"""What a provider's word may hold: what our tables could not keep as it is, is refused before anything is decided on it."""

import re
from datetime import UTC, datetime
from typing import Any

import msgspec

from shared.errors import Refusal
from shared.money import AMOUNT_MAX_MINOR_UNITS

# As many as Stripe promises (docs.stripe.com/upgrades, "255 characters"); an entry of an index of Postgres holds 2704 bytes.
ID_MAX_CHARACTERS = 255
TEXT_MAX_CHARACTERS = 1_000
URL_MAX_CHARACTERS = 8_000
# What is not text in JSON that we keep: more digits than these are written by no provider and read back by none of our readers.
JSON_INTEGERS = range(-(2**63), 2**63)
# Nothing we are told about happened before or will happen after.
MOMENT_MIN, MOMENT_MAX = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
CURRENCY = re.compile(r"[A-Z]{3}")


class ImplausibleValue(ValueError):
    """A provider said something that cannot be: no such amount, text or moment is kept."""


# What reading a provider's word may trip over, which then lies in the word.
UNFIT = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError, msgspec.MsgspecError, Refusal)


def why(unfit: Exception) -> str:
    """Say what was wrong with a provider's word, without what of it could not be kept."""
    return f"{type(unfit).__name__}: {unfit}"[:TEXT_MAX_CHARACTERS].replace("\0", "")


def check_amount(name: str, amount: object, *, least: int) -> None:
    """Refuse what is no whole number of minor units from `least` to the most that we count."""
    check_number(name, amount, least=least, most=AMOUNT_MAX_MINOR_UNITS)


def check_number(name: str, number: object, *, least: int, most: int) -> None:
    """Refuse what is no whole number in these bounds; true is no number, nor is 1.0."""
    if not isinstance(number, int) or isinstance(number, bool) or not least <= number <= most:
        raise ImplausibleValue(f"{name} {number!r:.50} is no whole number from {least} to {most}")


def check_currency(currency: object) -> None:
    """Refuse what has not the form of an ISO 4217 code; codes that the standard has dropped are still read."""
    if not isinstance(currency, str) or not CURRENCY.fullmatch(currency):
        raise ImplausibleValue(f"currency {currency!r:.50} is no ISO 4217 code")


def check_text(name: str, text: object, *, characters_max: int, characters_min: int = 0) -> None:
    """Refuse a text that is too long or that Postgres cannot hold: with NUL, or with half a surrogate pair."""
    if text is None:
        return
    if not isinstance(text, str):
        raise ImplausibleValue(f"{name} is no text")
    if not characters_min <= len(text) <= characters_max:
        raise ImplausibleValue(f"{name} has {len(text)} characters, not {characters_min} to {characters_max}")
    if "\0" in text or not _is_utf8(text):
        raise ImplausibleValue(f"{name} {text!a:.100} holds a character that cannot be kept")


def check_moment(name: str, moment: datetime | None) -> None:
    """Refuse a time without its zone, or one at which nothing we are told of happens."""
    if moment is not None and (moment.tzinfo is None or not MOMENT_MIN <= moment < MOMENT_MAX):
        raise ImplausibleValue(f"{name} {moment.isoformat()} is no time with its zone from {MOMENT_MIN.year} to {MOMENT_MAX.year}")


def check_json(name: str, value: Any) -> None:
    """Refuse JSON that Postgres or our encoder cannot write."""
    if isinstance(value, dict):
        for key, inner in value.items():
            check_json(name, key)
            check_json(name, inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            check_json(name, inner)
    elif isinstance(value, str):
        check_text(name, value, characters_max=len(value))
    elif type(value) is int and value not in JSON_INTEGERS:
        raise ImplausibleValue(f"{name} holds a number over 64 bits")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
