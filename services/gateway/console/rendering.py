"""From facts to HTML: the templates, and how money, times, ids and states are written in all of them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jinja2
import msgspec
from markupsafe import Markup

from services.gateway.console.assets import address
from shared.ids import new_id
from shared.money import Money, decimal_text

TEMPLATES = Path(__file__).parent / "templates"

GOOD = frozenset(
    (
        *("paid", "authorized", "captured", "succeeded", "done", "completed", "processed", "delivered", "active", "healed", "resolved"),
        *("up", "valid", "enabled", "accepted", "bought", "retried", "kept"),
    )
)
BAD = frozenset(
    (
        *("declined", "failed", "conflicted", "unknown", "dead", "parked", "rejected", "down", "invalid", "disabled", "expired"),
        *("failing", "unmatched", "missing", "sent_no_answer", "not_sent", "return_to_sender", "failure", "stopped", "revoked"),
    )
)
WAITING = frozenset(
    (
        *("open", "waiting", "pending", "processing", "requires_action", "payment_pending", "partially_captured", "partially_paid"),
        *("running", "queued", "in_progress", "received", "retrying", "exception"),
    )
)


def tone(state: str) -> str:
    """Say whether a state is good, bad, waits, or is neither."""
    word = state.lower()
    return "good" if word in GOOD else "bad" if word in BAD else "waiting" if word in WAITING else "plain"


def money(minor: int, currency: str) -> str:
    """Write an amount of minor units for people."""
    sign = "−" if minor < 0 else ""
    return f"{sign}{decimal_text(Money(abs(minor), currency))}\u00a0{currency}"


def exact(moment: datetime) -> str:
    """Write a moment exactly, in UTC."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def span_text(seconds: float) -> str:
    """Write a time span by its largest unit."""
    for unit, size in UNITS:
        if abs(seconds) >= size:
            return f"{abs(seconds) // size:.0f}\u00a0{unit}"
    return "0\u00a0s"


def ago(moment: datetime) -> str:
    """Write how long ago a moment was, or how far off it is."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"{span_text(seconds)} ago" if seconds > 0 else f"in {span_text(seconds)}"


def duration(seconds: float) -> str:
    """Write how long something took."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f}\u00a0µs"
    return f"{seconds * 1000:.1f}\u00a0ms" if seconds < 1 else f"{seconds:.2f}\u00a0s"


def pretty(value: Any) -> str:
    """Write JSON for people."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def words(state: str) -> str:
    """Write a state's name as words."""
    return state.replace("_", " ")


def query(path: str, given: Mapping[str, Any], **changes: Any) -> str:
    """Write a path with a query: what was given, changed; nothing stays of what is empty."""
    wanted = {key: value for key, value in {**given, **changes}.items() if value not in (None, "", False)}
    return f"{path}?{urlencode(wanted)}" if wanted else path


LINE_WIDTH, LINE_HEIGHT = 120, 28


def line(values: Sequence[float | None]) -> Markup:
    """Draw values as a small line; where there is none, the line breaks off."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    top, step = max(*known, 1e-9), LINE_WIDTH / (len(values) - 1)
    path, pen = [], "M"
    for number, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        path.append(f"{pen}{number * step:.1f} {LINE_HEIGHT - 2 - value / top * (LINE_HEIGHT - 4):.1f}")
        pen = "L"
    label = f"the last {len(values)} samples, {known[-1]:.2g} now, {max(known):.2g} at most"
    return Markup(
        '<svg class="line" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}"><path d="{path}"/></svg>'
    ).format(w=LINE_WIDTH, h=LINE_HEIGHT, label=label, path=" ".join(path))


@cache
def _templates() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "tone": tone,
        "money": money,
        "exact": exact,
        "ago": ago,
        "duration": duration,
        "pretty": pretty,
        "words": words,
        "span": span_text,
        "line": line,
    }
    made.globals |= {"address": address, "query": query, "new_key": lambda: f"console-{new_id()}"}
    made.globals["ui"] = made.get_template("_ui.html").module
    return made


def render(template: str, facts: Mapping[str, Any]) -> str:
    """Render a whole page."""
    return _templates().get_template(template).render(facts)


def render_live(template: str, facts: Mapping[str, Any]) -> str:
    """Render only what of a page changes by itself."""
    found = _templates().get_template(template)
    return "".join(found.blocks["live"](found.new_context(dict(facts))))
