"""Postal codes by country: one spelling for what an address says and what rules, zones and territories name."""

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from string import ascii_uppercase

import msgspec

from shared.regions import in_form

# Before the code, people and old CEPT usage write the country: ISO 3166-1 or the sign of its vehicles (Convention on Road Traffic, 1968,
# Annex 3), also that of the country whose post serves a territory, and in that country's addresses the territory's own (MC-98000).
SIGNS: dict[str, tuple[str, ...]] = {
    country: tuple(signs)
    for country, *signs in map(
        str.split,
        (
            *("AD AND", "AT A", "AX FI FIN", "BE B", "BL FR F", "CH FL LI", "CY CYP", "CZ CS", "DE D", "DK GL", "EE EST", "ES E EA IC"),
            *("FI FIN SF AX", "FO DK FR", "FR F BL GF GP MC MF MQ NC PF PM RE WF YT", "GB UK", "GF FR F", "GG GB UK", "GL DK", "GP FR F"),
            *("GR EL", "HU H", "IE IRL", "IM GB UK", "IT I RSM SCV SM V VA", "JE GB UK", "LI FL CH", "LU L", "MC F FR", "MF FR F"),
            *("MQ FR F", "NC FR F", "NO N SJ", "PF FR F", "PM FR F", "PT P", "RE FR F", "RS SRB", "RU RUS", "SE S", "SI SLO", "SJ NO N"),
            *("SM RSM I IT", "TR TUR", "UA UKR", "VA V SCV I IT", "WF FR F", "YT FR F"),
            # Not a country: El Salvador and Oman write "código postal" and "postal code" before theirs.
            *("SV CP", "OM PC"),
        ),
    )
}
# Their codes may begin with the country's letters (JE2 3AB, MTF 1234 of Mtarfa), which are taken off only where a whole code is left.
OWN_LETTERS = frozenset({"BN", "IM", "JE", "MT", "SO"})
# ZIP codes: what follows the fifth digit says where in it, and no rate or tariff goes by that (USPS Publication 28, section 233).
ZIP_COUNTRIES = frozenset({"AS", "FM", "GU", "MH", "MP", "PR", "PW", "UM", "US", "VI"})
ZIP_LENGTH, ZIP_PLUS_4_LENGTH = 5, 9
ZIP_PLUS_4 = re.compile(r"[0-9]{5}[ -]?[0-9]{4}")
# Written with a dash in the middle, which looks like a range of equal halves (Korea's six digits, in use until July 2015).
DASH_IN_THE_MIDDLE = frozenset({"KR"})


# British codes end in a digit and two letters; what is before them is the outward code, of an area's letters and a district's number.
OUTWARD_COUNTRIES = frozenset({"GB", "GG", "IM", "JE"})
OUTWARD = re.compile(r"([A-Z]{1,2})([0-9]{1,2})([A-Z]?)")
INWARD_LENGTH = 3
WRITTEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 -]*\*?")


class Pattern(msgspec.Struct, frozen=True):
    """Codes in one spelling whose beginning lies from the one to the other, of one length where that is given."""

    first: str
    last: str
    length: int | None = None

    def names(self, code: str) -> bool:
        """Tell whether it names a code in that spelling."""
        return self.first <= code[: len(self.first)] <= self.last and self.length in (None, len(code)) and len(code) >= len(self.first)


@lru_cache(maxsize=200_000)
def normalized(country: str, code: str) -> str:
    """Spell a postal code in one way: capital letters and digits alone, without a country before it, and of ZIP+4 the ZIP."""
    plain = _without_country(country, _plain(code))
    if country not in ZIP_COUNTRIES:
        return plain
    # The state before it is no part of it (CA 90001).
    digits = plain.lstrip(ascii_uppercase)
    if not digits.isdigit():
        return plain
    return digits[:ZIP_LENGTH] if len(digits) == ZIP_PLUS_4_LENGTH else digits


@lru_cache(maxsize=200_000)
def patterns_of(country: str, text: str) -> tuple[Pattern, ...]:
    """Read a pattern: a code, the beginning of codes (`123*`), or a range of codes or of beginnings (`12000-12999`, `120-129`).

    A dash is a range's where its two sides are alike (as long, letters and digits at the same places) and rise; otherwise it is the
    code's own, as in `01310-100` or `K1A-0B1`. Of a range whose ends have dashes themselves the middle one counts. British outward
    codes stand for themselves (`IV1` is not `IV10`), and their ranges go by the number (`IV1-IV28`).
    """
    text = text.strip()
    if text.endswith("*"):
        begin = normalized(country, text[:-1])
        return (Pattern(begin, begin),)
    parts = [part for part in map(_plain, text.split("-")) if part and part not in _signs(country)]
    if parts and len(parts) % 2 == 0:
        middle = len(parts) // 2
        first, last = (normalized(country, "".join(side)) for side in (parts[:middle], parts[middle:]))
        if country in OUTWARD_COUNTRIES and (districts := _districts(first, last)):
            return districts
        dashed = country in DASH_IN_THE_MIDDLE and len(parts) == 2 and len(first) == INWARD_LENGTH
        if _shape(first) == _shape(last) and first <= last and not dashed:
            return (Pattern(first, last),)
    code = normalized(country, text)
    outward = country in OUTWARD_COUNTRIES and OUTWARD.fullmatch(code) is not None
    return (Pattern(code, code, len(code) + (INWARD_LENGTH if outward else 0)),)


def pattern_fault(country: str, text: str) -> str | None:
    """Say why a pattern could name no code of its country, or would name others than it says."""
    if not WRITTEN.fullmatch(text):
        return "is not like 12345, 123* or 12000-12999"
    if country in ZIP_COUNTRIES and ZIP_PLUS_4.fullmatch(text):
        return "is a ZIP+4; rules and tariffs go by the five digits of the ZIP code"
    for each in patterns_of(country, text):
        outward = country in OUTWARD_COUNTRIES and OUTWARD.fullmatch(each.first)
        if each.length is not None and not outward and not in_form(country, each.first):
            return f"is no postal code of {country}; the beginning of codes ends in *"
    return None


def named(country: str, postal_code: str, patterns: Iterable[str]) -> bool:
    """Tell whether one of a country's patterns names a postal code, however they are written."""
    code = normalized(country, postal_code)
    return any(each.names(code) for pattern in patterns for each in patterns_of(country, pattern))


def matches(postal_code: str, pattern: str, *, country: str = "") -> bool:
    """Tell whether a pattern names a postal code."""
    return named(country, postal_code, (pattern,))


def _districts(first: str, last: str) -> tuple[Pattern, ...]:
    """Name each outward code from one to another of the same area."""
    begin, end = OUTWARD.fullmatch(first), OUTWARD.fullmatch(last)
    if begin is None or end is None or begin[1] != end[1] or begin[3] or end[3]:
        return ()
    codes = [f"{begin[1]}{number}" for number in range(int(begin[2]), int(end[2]) + 1)]
    return tuple(Pattern(code, code, len(code) + INWARD_LENGTH) for code in codes)


def _plain(code: str) -> str:
    """Keep capital letters and digits, those of other scripts and of full width as Latin ones."""
    folded = unicodedata.normalize("NFKC", code).upper()
    digits = (str(unicodedata.decimal(each, each)) for each in folded)
    return "".join(each for each in digits if each.isascii() and each.isalnum())


def _without_country(country: str, code: str) -> str:
    for sign in _signs(country):
        rest = code.removeprefix(sign)
        if rest and rest != code and _is_sign(country, sign, code, rest):
            return rest
    return code


def _is_sign(country: str, sign: str, code: str, rest: str) -> bool:
    """Tell whether what a code begins with is its country's sign: a single letter is one before a digit alone."""
    if country in OWN_LETTERS:
        return not in_form(country, code) and in_form(country, rest)
    return rest[0].isdigit() or len(sign) > 1


@lru_cache
def _signs(country: str) -> tuple[str, ...]:
    return tuple(sorted({country, *SIGNS.get(country, ())} - {""}, key=len, reverse=True))


def _shape(code: str) -> tuple[bool, ...]:
    return tuple(each.isdigit() for each in code)
