"""The figures for people: a table with ratios, and a plot."""

import math
from collections.abc import Sequence
from html import escape

from rich.table import Table

from tests.bench.run import Figures
from tests.bench.yardsticks import NAMES

WIDTH_CHARACTERS = 130
WIDTH, ROW, LEFT, BAR = 900, 26, 330, 420


def table(lines: Sequence[Figures]) -> Table:
    """Draw the figures as a table."""
    drawn = Table(title="Medians of interleaved rounds; CPU is services, database and broker")
    for title in ("", "/s", "p50 ms", "p95 ms", "p99 ms", "errors", "CPU ms", *(f"× {name}" for name in NAMES)):
        drawn.add_column(title, justify="left" if not title else "right", no_wrap=True)
    for line in lines:
        times = (f"{line.per_second:.0f}", f"{line.p50_ms:.1f}", f"{line.p95_ms:.1f}", f"{line.p99_ms:.1f}")
        drawn.add_row(line.label, *times, str(line.errors), f"{line.cpu_together_ms:.1f}", *(f"{line.ratio(n):.3f}" for n in NAMES))
    return drawn


def details(lines: Sequence[Figures]) -> str:
    """Write what the table has no room for: CPU by process, and the yardsticks themselves."""
    texts = []
    for line in lines:
        cpu = ", ".join(f"{name} {used:.2f}" for name, used in line.cpu_ms.items())
        bare = ", ".join(f"{NAMES.get(name, name)} {rate:.0f}/s" for name, rate in line.yardsticks.items())
        texts.append(f"{line.label}: CPU ms each: {cpu}\n  yardsticks: {bare}")
    return "\n".join(texts)


def svg(lines: Sequence[Figures]) -> str:
    """Draw throughput beside the yardsticks as bars, on a logarithmic scale."""
    bars = []
    for line in lines:
        bars.append((line.label, line.per_second, "#2563eb"))
        bars += [(f"  {NAMES.get(name, name)}", rate, "#9ca3af") for name, rate in line.yardsticks.items()]
    most = max(rate for _, rate, _ in bars)
    parts = []
    for number, (label, rate, colour) in enumerate(bars):
        y = 40 + number * ROW
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 14}" text-anchor="end">{escape(label)}</text>'
            f'<rect x="{LEFT}" y="{y}" width="{_length(rate, most):.1f}" height="18" fill="{colour}"/>'
            f'<text x="{LEFT + _length(rate, most) + 8:.1f}" y="{y + 14}">{rate:.0f}/s</text>'
        )
    height = 60 + len(bars) * ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="white"/><text x="{LEFT}" y="24" font-weight="bold">a second, logarithmic</text>'
        f"{''.join(parts)}</svg>\n"
    )


def _length(rate: float, most: float) -> float:
    # A factor of ten thousand over the whole width.
    floor = most / 10_000
    return BAR * max(0.02, math.log10(max(rate, floor) / floor) / 4)
