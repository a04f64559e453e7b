"""What a provider's answer proves.

Only the provider's own words prove that nothing was done or that there is nothing: its error, of the shape and a type that its
documentation knows, on a status where the documentation says so. Everything else leaves the outcome open: a redirect, an unexpected
success, a page, an empty or cut body, an intermediary's 404 or 408 (RFC 9110 15.5.9), an error of an unknown type. Every adapter classifies
answers here, and brings only what is its provider's own: an `AnswerFormat`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from shared.errors import Refusal
from shared.http_client import Answer, NoAnswer, NotSent, retry_after_seconds

NOT_FOUND = 404
MESSAGE_MAX_CHARACTERS = 200
# What reading a body comes to that is not as it should be.
UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, msgspec.MsgspecError, Refusal)


class IndeterminateResponse(Exception):
    """An answer came, but no outcome: it must be looked up, not before `retry_after_seconds` have passed."""

    def __init__(self, text: str, *, retry_after_seconds: float = 0.0) -> None:
        super().__init__(text)
        self.retry_after_seconds = retry_after_seconds


# The ways in which a call can leave open what it did.
OUTCOME_UNKNOWN = (NotSent, NoAnswer, IndeterminateResponse)


class ProviderError(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's own error, of a type that its documentation knows."""

    code: str
    message: str = ""


class AnswerFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How one provider's answers are told from everybody else's."""

    provider: str
    # Reads the provider's error; nothing, or what cannot be read, for a body that is not of its documented shape or says nothing certain.
    read_error: Callable[[Answer], ProviderError | None]
    # On which statuses that error says that the request was not executed.
    refusing_statuses: frozenset[int]
    # Codes of the error that says, with 404, that there is no such thing.
    absence_codes: frozenset[str] = frozenset()
    success_statuses: frozenset[int] = frozenset({200, 201})

    def refusal(self, answer: Answer) -> ProviderError | None:
        """Read the provider's word that this request was not executed; nothing when the answer proves no such thing."""
        return self._error(answer) if answer.status in self.refusing_statuses else None

    def says_absent(self, answer: Answer) -> bool:
        """Tell whether the provider says that there is no such thing."""
        error = self.refusal(answer) if answer.status == NOT_FOUND else None
        return error is not None and error.code in self.absence_codes

    def shown(self, answer: Answer) -> dict[str, Any]:
        """Take the body of a success; raises IndeterminateResponse for every other answer."""
        if answer.status not in self.success_statuses:
            raise self.indeterminate(answer)
        return answer.body

    def indeterminate(self, answer: Answer) -> IndeterminateResponse:
        """Say that an answer proves nothing."""
        error = self._error(answer)
        text = f"{self.provider} answered {answer.status} {error.code if error else ''}".strip()
        return IndeterminateResponse(text, retry_after_seconds=retry_after_seconds(answer.headers))

    @contextmanager
    def reading(self, failure: type[IndeterminateResponse] = IndeterminateResponse) -> Iterator[None]:
        """Read an answer inside: one that cannot be read is none, so what it was about stays open."""
        try:
            yield
        except UNREADABLE as unfit:
            reason = f"{type(unfit).__name__}: {unfit}"[:MESSAGE_MAX_CHARACTERS]
            raise failure(f"{self.provider}'s answer cannot be read: {reason}") from unfit

    def _error(self, answer: Answer) -> ProviderError | None:
        try:
            return self.read_error(answer)
        except UNREADABLE:
            return None


def text_of(value: Any) -> str:
    """Take a text out of an error as far as it is kept; nothing for what is no text."""
    return value[:MESSAGE_MAX_CHARACTERS] if isinstance(value, str) else ""
