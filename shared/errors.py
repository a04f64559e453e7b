"""The three ways a thing goes wrong: a rule says no, the world is silent, or we have a bug."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar

import msgspec


class Outcome(StrEnum):
    """What became of the money-moving attempt that an error answers."""

    NOT_ATTEMPTED = "not_attempted"
    DECLINED = "declined"
    UNKNOWN = "unknown"
    CONFLICT = "conflict"


class Retry(StrEnum):
    """What the caller should do next with the same request."""

    NEVER = "never"
    SAME_KEY = "same_key"
    AFTER = "after"
    NEW_METHOD = "new_method"


# The code of the problem that says that somebody needed is away: the same again later.
UNAVAILABLE = "unavailable"


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One error as it travels: over the bus as it is, over HTTP as problem+json (RFC 9457)."""

    code: str
    title: str
    status: int
    detail: str
    outcome: Outcome | None = None
    retry: Retry | None = None
    retry_after_seconds: int | None = None
    facts: dict[str, Any] = {}

    @property
    def definitive(self) -> bool:
        """Whether another try of the same request can never change this answer."""
        return self.status < 500 and self.retry in (Retry.NEVER, Retry.NEW_METHOD)


# On every problem: a browser that shows one runs nothing of it (security report, case 104).
SAFE_HEADERS = {"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "X-Content-Type-Options": "nosniff"}


def problem_body(problem: Problem, correlation_id: str) -> dict[str, Any]:
    """Write a problem as RFC 9457 has it, with our extensions."""
    body: dict[str, Any] = {
        "type": f"urn:tender:problem:{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "correlation_id": correlation_id,
    }
    if problem.outcome is not None:
        body["outcome"] = problem.outcome.value
    if problem.retry is not None:
        body["retry"] = problem.retry.value
    if problem.retry_after_seconds is not None:
        body["retry_after"] = problem.retry_after_seconds
    return {**problem.facts, **body}


class Clear(Exception):
    """Something went wrong for a known reason; the text says all that whoever typed the command must know."""


# The members that a problem has by itself (RFC 9457, section 3.1, and our extensions): no fact may bear such a name.
OWN_MEMBERS = frozenset(
    {*("type", "title", "status", "detail", "instance"), *("code", "correlation_id", "outcome", "retry", "retry_after")}
)


class Refusal(Exception):
    """A rule says no; never retried by us, told to the caller with its code."""

    code: ClassVar[str]
    title: ClassVar[str]
    status: ClassVar[int] = 409
    outcome: ClassVar[Outcome | None] = None
    retry: ClassVar[Retry] = Retry.NEVER
    retry_after_seconds: ClassVar[int | None] = None

    def __init__(self, detail: str, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = dict(facts or {})
        assert not OWN_MEMBERS & self.facts.keys(), f"a fact would be lost behind a problem's own member: {sorted(self.facts)}"

    @staticmethod
    def of(problem: Problem) -> "Refusal":
        """Make a refusal of what another service's rule said, to pass it on as it is."""
        return _PassedOn(problem)

    def problem(self) -> Problem:
        """Say the refusal in the form that travels."""
        return Problem(
            code=self.code,
            title=self.title,
            status=self.status,
            detail=self.detail,
            outcome=self.outcome,
            retry=self.retry,
            retry_after_seconds=self.retry_after_seconds,
            facts=self.facts,
        )


class _PassedOn(Refusal):
    code = "passed-on"
    title = "Another service refused this"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.facts = problem.facts
        self._problem = problem

    def problem(self) -> Problem:
        """Say it as the other service did."""
        return self._problem


class NotFound(Refusal):
    """What was asked for does not exist for this caller."""

    code = "not-found"
    title = "There is no such thing here"
    status = 404


class Invalid(Refusal):
    """The request is well-formed and still makes no sense; facts name the field."""

    code = "invalid-request"
    title = "The request does not make sense"
    status = 422


class Unavailable(Exception):
    """Outside is silent; the worker tries again later."""


class Contended(Unavailable):
    """The database undid a transaction because of others (a deadlock, a conflict); the same at once again works."""
