"""FX reference rates from files: the ECB's own shape and ours, all or none, and a rate that is known never changes."""

from decimal import Decimal
from pathlib import Path

import asyncpg
import pytest

from deploy import fx
from deploy.fx import RatesRefused
from tests.world import Place

HEADING = "base,quote,rate,date,source\n"
# As the bank writes its daily file: a trailing comma, spaces after the commas, and the month in words; its history has dates in figures.
DAILY = "Date, USD, JPY, ISK, \n25 November 2026, 1.0851, 162.30, N/A, \n"
HISTORY = "Date,USD,JPY,ISK,\n2026-11-25,1.0851,162.30,N/A,\n"


def a_file(folder: Path, text: str) -> Path:
    file = folder / "rates.csv"
    file.write_text(text)
    return file


async def kept(place: Place, source: str) -> list[tuple[str, str, Decimal]]:
    connection = await asyncpg.connect(place.database_url)
    try:
        rows = await connection.fetch(
            "SELECT base, quote, rate FROM payments.fx_reference_rates WHERE source = $1 ORDER BY base, quote", source
        )
    finally:
        await connection.close()
    return [(row["base"], row["quote"], row["rate"].normalize()) for row in rows]


async def test_the_banks_own_file_both_ways(place: Place, tmp_path: Path) -> None:
    rates = fx.read(a_file(tmp_path, DAILY))

    again = fx.read(a_file(tmp_path, HISTORY))
    first, second = await fx.bring_in(place.database_url, rates), await fx.bring_in(place.database_url, again)

    assert ((first.new, first.known), (second.new, second.known)) == ((4, 0), (0, 4))
    # 1 / 1.0851 = 0.92157404847…, half-even to ten decimals.
    assert await kept(place, "ECB") == [
        ("EUR", "JPY", Decimal("162.3")),
        ("EUR", "USD", Decimal("1.0851")),
        ("JPY", "EUR", Decimal("0.0061614295")),
        ("USD", "EUR", Decimal("0.9215740485")),
    ]


def test_the_banks_history_has_currencies_that_have_gone(tmp_path: Path) -> None:
    """The heading of eurofxref-hist.csv, whose columns go back to 1999; a currency of then must not refuse the file (F7's kin)."""
    heading = "Date,USD,JPY,BGN,CYP,CZK,DKK,EEK,GBP,HUF,LTL,LVL,MTL,PLN,ROL,RON,SEK,SIT,SKK,CHF,ISK,NOK,HRK,RUB,TRL,TRY,AUD,BRL,"
    columns = heading.split(",")[1:-1]

    rates = fx.read(a_file(tmp_path, f"{heading}\n2005-01-03,{','.join('1.5' for _ in columns)},\n"))

    assert {rate.quote for rate in rates if rate.base == "EUR"} == set(columns)


async def test_a_rate_that_is_known_never_changes(place: Place, tmp_path: Path) -> None:
    await fx.bring_in(place.database_url, fx.read(a_file(tmp_path, HEADING + "CHF,EUR,1.05,2026-11-25,house\n")))
    other = fx.read(a_file(tmp_path, HEADING + "SEK,EUR,0.09,2026-11-25,house\nCHF,EUR,1.06,2026-11-25,house\n"))

    with pytest.raises(RatesRefused, match=r"CHF/EUR of 2026-11-25 is known as 1\.05, and the file says 1\.06"):
        await fx.bring_in(place.database_url, other)

    assert await kept(place, "house") == [("CHF", "EUR", Decimal("1.05"))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has neither the columns"),
        ("a,b\n1,2\n", "has neither the columns"),
        (HEADING + "CHF,EUR,0,2026-11-25,x\n", "a rate of 0 is none"),
        (HEADING + "CHF,EUR,NaN,2026-11-25,x\n", "a rate of NaN is none"),
        (HEADING + "CHF,EUR,one,2026-11-25,x\n", "line 2"),
        (HEADING + "CHF,EUR,1,yesterday,x\n", "line 2"),
        (HEADING + "CHF,EUR,1,31 November 2026,x\n", "line 2"),
        (HEADING + "CHF,XXX,1,2026-11-25,x\n", "XXX"),
        (HEADING + "CHF,EUR,1,2026-11-25,\n", "source is empty"),
    ],
)
def test_what_makes_no_sense_is_said_by_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RatesRefused, match=said):
        fx.read(a_file(tmp_path, text))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RatesRefused, match="cannot be read"):
        fx.read(tmp_path / "nowhere.csv")
