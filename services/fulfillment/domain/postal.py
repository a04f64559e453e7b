"""Postal codes by country: one spelling for what an address says and what rules, zones and territories name."""

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from string import ascii_uppercase

import msgspec

# Before the code, people and old CEPT usage write the country: ISO 3166-1 or the sign of its vehicles (Convention on Road Traffic, 1968,
# Annex 3), also that of the country whose post serves a territory.
SIGNS: dict[str, tuple[str, ...]] = {
    country: tuple(signs)
    for country, *signs in map(
        str.split,
        (
            *("AD AND", "AT A", "AX FI FIN", "BE B", "BL FR F", "CY CYP", "CZ CS", "DE D", "EE EST", "ES E", "FI FIN SF AX", "FO DK FR"),
            *("FR F", "GB UK", "GF FR F", "GG GB UK", "GL DK", "GP FR F", "GR EL", "HU H", "IE IRL", "IM GB UK", "IT I", "JE GB UK"),
            *("LI FL CH", "LU L", "MC F FR", "MF FR F", "MQ FR F", "NC FR F", "NO N", "PF FR F", "PM FR F", "PT P", "RE FR F", "RS SRB"),
            *("RU RUS", "SE S", "SI SLO", "SJ NO N", "SM RSM I IT", "TR TUR", "UA UKR", "VA V SCV I IT", "WF FR F", "YT FR F"),
            # Not a country: El Salvador and Oman write "código postal" and "postal code" before theirs.
            *("SV CP", "OM PC"),
        ),
    )
}
# Codes that begin with a letter, as do those that begin with their own country's (JE2 3AB, BN1234): nothing before them is taken off.
OWN_LETTERS = frozenset({"BN", "IM", "JE", "SO"})
# Maltese codes are three letters and four digits; MTF is Mtarfa, and MT before a whole one is the country.
MALTA, MALTESE_LENGTH = "MT", 7
# ZIP codes: what follows the fifth digit says where in it, and no rate or tariff goes by that (USPS Publication 28, section 233).
ZIP_COUNTRIES = frozenset({"AS", "FM", "GU", "MH", "MP", "PR", "PW", "UM", "US", "VI"})
ZIP_LENGTH, ZIP_PLUS_4_LENGTH = 5, 9
# Written with a dash in the middle, which looks like a range of equal halves (Korea's six digits, in use until July 2015).
DASH_IN_THE_MIDDLE = frozenset({"KR"})


class Pattern(msgspec.Struct, frozen=True):
    """Codes whose beginning lies from the one to the other, in one spelling; `whole` where nothing may follow it."""

    first: str
    last: str
    whole: bool = False

    def names(self, code: str) -> bool:
        """Tell whether it names a code in that spelling."""
        size = len(self.first)
        return len(code) >= size and self.first <= code[:size] <= self.last and not (self.whole and len(code) > size)


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
def pattern_of(country: str, text: str) -> Pattern:
    """Read a pattern: a code, the beginning of codes (`123*`), or a range of codes or of beginnings (`12000-12999`, `120-129`).

    A dash is a range's where its two sides are alike (as long, letters and digits at the same places) and rise; otherwise it is the
    code's own, as in `01310-100` or `K1A-0B1`. Of a range whose ends have dashes themselves the middle one counts.
    """
    text = text.strip()
    if text.endswith("*"):
        begin = normalized(country, text[:-1])
        return Pattern(begin, begin)
    parts = [part for part in map(_plain, text.split("-")) if part and part not in _signs(country)]
    if parts and len(parts) % 2 == 0:
        middle = len(parts) // 2
        first, last = (normalized(country, "".join(side)) for side in (parts[:middle], parts[middle:]))
        dashed = country in DASH_IN_THE_MIDDLE and len(parts) == 2 and len(first) == 3
        if _shape(first) == _shape(last) and first <= last and not dashed:
            return Pattern(first, last)
    code = normalized(country, text)
    return Pattern(code, code, whole=True)


def matches(postal_code: str, pattern: str, *, country: str = "") -> bool:
    """Tell whether a pattern names a postal code, however either is written in their country."""
    return pattern_of(country, pattern).names(normalized(country, postal_code))


def named(country: str, postal_code: str, patterns: Iterable[str]) -> bool:
    """Tell whether one of a country's patterns names a postal code."""
    code = normalized(country, postal_code)
    return any(pattern_of(country, pattern).names(code) for pattern in patterns)


def _plain(code: str) -> str:
    """Keep capital letters and digits, those of other scripts and of full width as Latin ones."""
    folded = unicodedata.normalize("NFKC", code).upper()
    digits = (str(unicodedata.decimal(each, each)) for each in folded)
    return "".join(each for each in digits if each.isascii() and each.isalnum())


def _without_country(country: str, code: str) -> str:
    if country in OWN_LETTERS and not code.startswith(SIGNS.get(country, ("-",))):
        return code
    for sign in _signs(country):
        rest = code.removeprefix(sign)
        if rest and rest != code and _may_be(country, sign, code, rest):
            return rest
    return code


@lru_cache
def _signs(country: str) -> tuple[str, ...]:
    return tuple(sorted({country, *SIGNS.get(country, ())} - {""}, key=len, reverse=True))


def _may_be(country: str, sign: str, code: str, rest: str) -> bool:
    """Tell whether what begins like a country's sign is one: no code of the country begins so."""
    if country == MALTA:
        return len(code) > MALTESE_LENGTH
    return rest[0].isdigit() or len(sign) > 1


def _shape(code: str) -> tuple[bool, ...]:
    return tuple(each.isdigit() for each in code)
