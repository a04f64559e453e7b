"""FX reference rates from a file: the European Central Bank's own CSV, or one rate a row; a rate that is known never changes."""

import csv
import io
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from pathlib import Path

import msgspec

from shared.errors import Clear
from shared.money import UnknownCurrency, exponent
from shared.owner import acting_as_owner

ECB = "ECB"
EURO = "EUR"
# As many as a row holds; the way back from euros is rounded half-even to them.
DECIMALS = Decimal("0.0000000001")
ROWS_MAX = 2_000_000
HEADING = ("base", "quote", "rate", "date", "source")


class RatesRefused(Clear):
    """The file cannot be taken; the text says why. Nothing was changed."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit of `base` was worth in `quote` on a day, and who says so."""

    base: str
    quote: str
    rate: Decimal
    day: date
    source: str


def read(file: Path) -> list[Rate]:
    """Read rates; raises RatesRefused."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as missing:
        raise RatesRefused(f"{file} cannot be read: {missing.strerror}.") from missing
    except UnicodeDecodeError as broken:
        raise RatesRefused(f"{file} is not UTF-8: {broken.reason}.") from broken
    rows = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    names = [name.strip() for name in rows.fieldnames or ()]
    try:
        if names[:1] == ["Date"]:
            return list(_of_the_ecb(rows))
        if set(names) == set(HEADING):
            return [_rate(row["base"], row["quote"], row["rate"], row["date"], row["source"]) for row in rows]
    except (ValueError, InvalidOperation, UnknownCurrency, KeyError, TypeError) as unfit:
        raise RatesRefused(f"{file}, line {rows.line_num}: {unfit}. Nothing was changed.") from unfit
    raise RatesRefused(f"{file} has neither the columns {', '.join(HEADING)} nor those of the ECB (Date, USD, …). Nothing was changed.")


def _of_the_ecb(rows: "csv.DictReader[str]") -> Iterator[Rate]:
    """Read the ECB's eurofxref.csv or eurofxref-hist.csv (ecb.europa.eu): what a euro is worth, and the way back."""
    for row in rows:
        day = row["Date"]
        for name, value in row.items():
            currency = (name or "").strip()
            # Some columns are of currencies that have gone, or are empty.
            if len(currency) != 3 or value in (None, "", "N/A") or not value.strip():
                continue
            there = _rate(EURO, currency, value, day, ECB)
            yield there
            yield msgspec.structs.replace(
                there, base=currency, quote=EURO, rate=(1 / there.rate).quantize(DECIMALS, rounding=ROUND_HALF_EVEN)
            )


def _rate(base: str, quote: str, rate: str, day: str, source: str) -> Rate:
    worth = Decimal(rate.strip())
    if not worth.is_finite() or worth <= 0:
        raise ValueError(f"a rate of {rate} is none")
    if not source.strip():
        raise ValueError("source is empty: say whose rate it is")
    for currency in (base, quote):
        exponent(currency.strip())
    return Rate(base=base.strip(), quote=quote.strip(), rate=worth, day=_day(day.strip()), source=source.strip())


def _day(text: str) -> date:
    # The ECB writes 2026-11-25 in its history, and 25 November 2026 in its daily file.
    return datetime.strptime(text, "%d %B %Y").replace(tzinfo=UTC).date() if " " in text else date.fromisoformat(text)


class Brought(msgspec.Struct, frozen=True):
    """What an import brought."""

    new: int
    known: int


async def bring_in(database_url: str, rates: list[Rate]) -> Brought:
    """Keep rates, all or none; one that is known otherwise is refused. Takes the owner's database URL."""
    if len(rates) > ROWS_MAX:
        raise RatesRefused(f"There are {len(rates)} rates, more than {ROWS_MAX}; take a part of the file. Nothing was changed.")
    after: dict[str, int] = {}
    async with acting_as_owner(database_url, "payments", "fx_rates.import", after=after) as connection:
        await connection.execute("CREATE TEMP TABLE brought (LIKE payments.fx_reference_rates) ON COMMIT DROP")
        records = [(each.base, each.quote, each.rate, each.source, each.day) for each in rates]
        await connection.copy_records_to_table("brought", records=records, columns=("base", "quote", "rate", "source", "rate_date"))
        other = await connection.fetchrow(
            """
            SELECT b.base, b.quote, b.rate_date, k.rate AS known, b.rate
              FROM brought b
              JOIN payments.fx_reference_rates k USING (base, quote, rate_date, source)
             WHERE k.rate <> b.rate
             LIMIT 1
            """
        )
        if other is not None:
            pair, known, told = f"{other['base']}/{other['quote']}", other["known"].normalize(), other["rate"].normalize()
            raise RatesRefused(
                f"{pair} of {other['rate_date']} is known as {known:f}, and the file says {told:f}. A rate never changes; give the "
                "other one a source of its own. Nothing was changed."
            )
        done = await connection.execute("INSERT INTO payments.fx_reference_rates SELECT DISTINCT * FROM brought ON CONFLICT DO NOTHING")
        after["new"] = int(done.split()[-1])
    new = after["new"]
    return Brought(new, len(rates) - new)
