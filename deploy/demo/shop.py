"""A shop's backend, as far as the demonstration needs one: every request shown with its answer and time."""

import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx
import msgspec
from rich.console import Console

from deploy.state import StackState
from shared.errors import Clear
from shared.money import Money, decimal_text

TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 0.02

T = TypeVar("T")

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Clear):
    """The demonstration did not go as it should; the text says where."""


class Shop:
    """A shop's backend, as far as the demonstration needs one."""

    def __init__(self, state: StackState) -> None:
        self._client = httpx.Client(
            base_url=state.gateway_url, headers={"Authorization": f"Bearer {state.api_key}"}, timeout=TIMEOUT_SECONDS
        )

    def send(self, title: str, method: str, path: str, body: Any = None, *, key: str | None = None, expect: int) -> httpx.Response:
        """Make a request, show it with its answer and time, and insist on the status."""
        answer, elapsed = self.timed(method, path, body, key=key)
        show(title, method, path, key, answer, elapsed)
        if answer.status_code != expect:
            raise DemoFailed(f"{title}: {answer.status_code} instead of {expect}: {answer.text}")
        return answer

    def timed(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[httpx.Response, float]:
        """Make a request and time it."""
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None if body is None else msgspec.json.encode(body)
        started = time.monotonic()
        answer = self._client.request(method, path, content=content, headers=headers)
        return answer, time.monotonic() - started


def until(found: Callable[[], T | None], otherwise: str) -> T:
    """Wait until something is found, and give it; raises DemoFailed."""
    ends = time.monotonic() + TIMEOUT_SECONDS
    while not (result := found()):
        insist(time.monotonic() < ends, otherwise)
        time.sleep(POLL_SECONDS)
    return result


def show(title: str, method: str, path: str, key: str | None, answer: httpx.Response, elapsed: float) -> None:
    """Show a request with its answer."""
    console.print(f"[bold]{title}[/bold]\n  {method} {path}" + (f"  [dim]Idempotency-Key: {key}[/dim]" if key else ""))
    replayed = "  [dim]Idempotent-Replayed: true[/dim]" if answer.headers.get("Idempotent-Replayed") else ""
    console.print(f"  {status(answer)} in {elapsed * 1000:.0f} ms{replayed}  {_gist(answer)}\n")


def _gist(answer: httpx.Response) -> str:
    body = answer.json()
    if "totals" in body:
        return f"total {money(body['totals']['total'], body.get('currency') or body['content']['currency'])}"
    if "intent" in body:
        intent, row = body["intent"], body["transaction"]
        amount = money(row["amount"], intent["currency"])
        return f"{row['operation']} of {amount} {row['status']}; the payment is {intent['status']}"
    return f"{body.get('code', '')} {body.get('detail', '')}"


def money(amount: int, currency: str) -> str:
    """Write an amount for people."""
    return f"{decimal_text(Money(amount, currency))} {currency}"


def status(answer: httpx.Response) -> str:
    """Write a status in its colour."""
    colour = "green" if answer.status_code < 400 else "yellow"
    return f"[{colour}]{answer.status_code}[/{colour}]"


def insist(true: bool, otherwise: str) -> None:
    """Insist that something is as it should be; raises DemoFailed."""
    if not true:
        raise DemoFailed(otherwise)
