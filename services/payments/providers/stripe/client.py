"""Calling Stripe: the exact requests, and what its answers and events say."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from services.payments.domain.intents import Observation, Operation, TransactionStatus
from services.payments.providers import (
    Capabilities,
    Observed,
    Prepared,
    ProviderTransaction,
    Request,
    TransactionPage,
    TransactionUnreadable,
    Unreadable,
    UnreadableTransaction,
)
from services.payments.providers.stripe import API_VERSION, objects, requests
from services.payments.providers.stripe.amounts import from_stripe
from services.payments.providers.stripe.objects import BalanceTransaction, Dispute, Owned, PaymentError, PaymentIntent, Refund
from shared.http_client import Answer, ProviderClient, told_back
from shared.provider_answers import UNREADABLE, AnswerFormat, IndeterminateResponse, ProviderError, text_of

URL = "https://api.stripe.com"
# Stripe forgets a key after 24 hours at the earliest (docs.stripe.com/api/idempotent_requests).
REPLAY_WINDOW_SECONDS = 24 * 3600
# Nothing repeats a call by then, and the search, which lags by up to an hour when Stripe is unwell, has caught up.
ABSENCE_IS_PROOF_AFTER_SECONDS = 26 * 3600
# An error that Stripe remembers for a key ended that request; so long after it the books show all that it did.
SETTLED_AFTER_SECONDS = 60.0

PAGE_ROWS = 100
# A payment whose answer was lost was made soon after its reference was; so many pages are looked through for it.
MADE_BEFORE_SECONDS = 60
MADE_WITHIN_SECONDS = 600
LOOKED_THROUGH_PAGES_MAX = 5

# What the audit may keep of a request or an answer; everything else is left out.
AUDITED = frozenset(
    {
        *("id", "object", "status", "amount", "amount_received", "amount_capturable", "amount_to_capture", "currency", "created"),
        *("capture_method", "confirm", "final_capture", "metadata", objects.REFERENCE, objects.ORDER, "latest_charge", "payment_intent"),
        *("refunds", "data", "has_more", "cancellation_reason", "disputed", "reason", "failure_reason"),
        *("error", "type", "code", "decline_code", "advice_code", "message", "param", "last_payment_error"),
    }
)

T = TypeVar("T")


class StripePayments:
    """Speaks Stripe's API with one secret or restricted key."""

    name = "stripe"

    def __init__(
        self,
        *,
        api_key: str,
        timeout_seconds: float,
        base_url: str = URL,
        multicapture: bool = False,
        publishable_key: str = "",
        settled_after_seconds: float = SETTLED_AFTER_SECONDS,
        account: str = "stripe:default",
    ) -> None:
        self.account = account
        self.capabilities = Capabilities(
            partial_capture=True,
            multiple_captures=multicapture,
            final_capture=True,
            partial_refund=True,
            multiple_refunds=True,
            # Once a part is captured the rest is let go by a capture that is the last one.
            void_after_capture=False,
            currencies=None,
            replay_window_seconds=REPLAY_WINDOW_SECONDS,
            absence_is_proof_after_seconds=ABSENCE_IS_PROOF_AFTER_SECONDS,
        )
        self._multicapture = multicapture
        self._publishable_key = publishable_key
        self._settled_after_seconds = settled_after_seconds
        self._client = ProviderClient(
            service="payments",
            provider=self.name,
            base_url=base_url,
            headers={
                "Authorization": f"Bearer {api_key}",
                "Content-Type": "application/x-www-form-urlencoded",
                "Stripe-Version": API_VERSION,
            },
            timeout_seconds=timeout_seconds,
            audited=AUDITED,
            fields=requests.fields_of_form,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    def browser(self) -> dict[str, str]:
        """Say with what the shopper's browser makes a payment method: the publishable key."""
        return {"publishable_key": self._publishable_key} if self._publishable_key else {}

    # Calls that change something

    def prepare(self, request: Request) -> Prepared:
        """Write the exact call for a request; refuses an amount that Stripe cannot express."""
        return requests.prepare(request, multicapture=self._multicapture)

    async def send(self, prepared: Prepared, *, idempotency_key: str, reference: UUID) -> tuple[Observation, ...]:
        """Make a call and say what it shows of the payment."""
        headers = {"Idempotency-Key": idempotency_key} if prepared.method == "POST" else {}
        answer = await self._client.call(prepared.operation, prepared.method, prepared.path, body=prepared.body, headers=headers)
        with ANSWERS.reading():
            if _remembered_failure(answer) and _age_seconds(reference) > self._settled_after_seconds:
                # That request ended in an error, and whoever repeats it has looked: the books do not show it.
                return (_not_done(prepared, TransactionStatus.FAILED, "provider_error", answer, reference),)
            return _refused(prepared, answer, reference) if ANSWERS.refusal(answer) else _shown(prepared, answer, reference)

    # Reading

    async def get_transaction(self, provider_payment_id: str) -> ProviderTransaction | None:
        """Read a payment from Stripe's books."""
        return await self._get(provider_payment_id)

    async def _get(self, provider_payment_id: str, *, void: UUID | None = None) -> ProviderTransaction | None:
        query = {"expand[0]": requests.WITH_CHARGE}
        answer = await self._client.call("get_transaction", "GET", requests.path_of(provider_payment_id), query=query)
        if ANSWERS.says_absent(answer):
            return None
        return await self._whole(_payment_of(answer, provider_payment_id), void=void)

    async def find_by_reference(
        self, reference: UUID, *, operation: Operation, provider_payment_id: str | None, provider_txn_id: str | None = None
    ) -> ProviderTransaction | None:
        """Find the payment that one of our transactions made or changed."""
        if provider_payment_id is None:
            made = objects.minted_at(reference)
            searched, found = await self._search(reference)
            # What the search, which lags behind, does not know yet was made just now; without a search it may have been made at any time.
            until = made + timedelta(seconds=MADE_WITHIN_SECONDS) if searched else datetime.now(UTC)
            return found or await self._look_through(reference, since=made - timedelta(seconds=MADE_BEFORE_SECONDS), until=until)
        found = await self._get(provider_payment_id, void=reference if operation is Operation.VOID else None)
        return found if found is not None and found.shows(operation, reference, provider_txn_id) else None

    async def _search(self, reference: UUID) -> tuple[bool, ProviderTransaction | None]:
        """Find by metadata; tells whether the account can search at all (in some countries none can)."""
        query = {"query": f"metadata['{objects.REFERENCE}']:'{reference}'", "expand[0]": f"data.{requests.WITH_CHARGE}"}
        answer = await self._client.call("search", "GET", "/v1/payment_intents/search", query=query)
        if answer.status == 400 and ANSWERS.refusal(answer):
            return False, None
        found = _rows(answer)
        return True, await self._whole(found[0]) if found else None

    async def _look_through(self, reference: UUID, *, since: datetime, until: datetime) -> ProviderTransaction | None:
        cursor = None
        for _ in range(LOOKED_THROUGH_PAGES_MAX):
            rows, cursor = await self._page(since, until, cursor)
            for row in rows:
                if _as(Owned, row).reference == reference:
                    return await self._whole(row)
            if cursor is None:
                return None
        raise IndeterminateResponse("stripe has more payments of that time than are looked through")

    async def list_transactions(self, *, since: datetime, until: datetime, cursor: str | None) -> TransactionPage:
        """Page through Stripe's books by time of creation, the newest first; what bears no reference of ours is skipped unread."""
        rows, following = await self._page(since, until, cursor)
        found, unreadable = [], []
        for row in rows:
            if (owned := _as(Owned, row)).reference is not None:
                try:
                    found.append(await self._whole(row))
                except TransactionUnreadable as unfit:
                    unreadable.append(UnreadableTransaction(provider_payment_id=owned.id, reason=str(unfit)))
        return TransactionPage(transactions=tuple(found), next=following, unreadable=tuple(unreadable))

    async def is_strangers(self, provider_payment_id: str) -> bool:
        """Tell whether Stripe knows a payment that bears no reference of ours."""
        answer = await self._client.call("get_transaction", "GET", requests.path_of(provider_payment_id))
        if ANSWERS.says_absent(answer):
            return False
        return _as(Owned, _payment_of(answer, provider_payment_id)).reference is None

    async def _page(self, since: datetime, until: datetime, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        query = {
            "created[gte]": str(int(since.timestamp())),
            "created[lt]": str(int(until.timestamp()) + 1),
            "limit": str(PAGE_ROWS),
            "expand[0]": f"data.{requests.WITH_CHARGE}",
            **({"starting_after": cursor} if cursor else {}),
        }
        answer = await self._client.call("list_transactions", "GET", "/v1/payment_intents", query=query)
        page = _rows(answer)
        return page, _as(Owned, page[-1]).id if answer.body.get("has_more") and page else None

    async def _whole(self, row: dict[str, Any], *, void: UUID | None = None) -> ProviderTransaction:
        """Read what the object alone does not hold: refunds after the first ten, disputes, and what tells a Refund that is none."""
        with ANSWERS.reading(TransactionUnreadable):
            intent = msgspec.convert(row, PaymentIntent)
        charge, refunds, disputes, brought = intent.charge, objects.refunds_shown(intent), [], None
        if charge is not None and charge.refunds is not None and charge.refunds.has_more:
            refunds = await self._all("list_refunds", "/v1/refunds", intent.id, Refund, lambda refund: refund.id)
        if charge is not None and charge.disputed:
            disputes = await self._all("list_disputes", "/v1/disputes", intent.id, Dispute, lambda dispute: dispute.id)
        if charge is not None and charge.balance_transaction is not None and objects.in_doubt(intent, refunds):
            path = f"/v1/balance_transactions/{charge.balance_transaction}"
            answer = await self._client.call("get_balance_transaction", "GET", path)
            with ANSWERS.reading(TransactionUnreadable):
                brought = msgspec.convert(_shown_object(answer, "balance_transaction"), BalanceTransaction)
        with ANSWERS.reading(TransactionUnreadable):
            return objects.transaction(intent, refunds=refunds, disputes=disputes, void=void, brought=brought)

    async def _all(self, operation: str, path: str, payment_id: str, kind: type[T], id_of: Callable[[T], str]) -> list[T]:
        found: list[T] = []
        while True:
            after = {"starting_after": id_of(found[-1])} if found else {}
            answer = await self._client.call(operation, "GET", path, query={"payment_intent": payment_id, "limit": str(PAGE_ROWS), **after})
            with ANSWERS.reading(TransactionUnreadable):
                page = msgspec.convert(_rows(answer), list[kind])  # type: ignore[valid-type]
            found += page
            if not answer.body.get("has_more") or not page:
                return found

    # Events

    def observe(self, event_type: str, payload: bytes) -> Observed | None:
        """Read an event by the object it holds; what says too little, or as another version has it, is to be read from the books."""
        if not event_type.startswith(TOLD_OF):
            return None  # Of other kinds not all hold an object with an id (invoice.upcoming, balance.available), or one at all (v2).
        try:
            event = msgspec.json.decode(payload)
            return _observed(event_type, event["data"]["object"], version=event.get("api_version"))
        except UNREADABLE as unfit:
            raise Unreadable(f"{type(unfit).__name__}: {unfit}") from unfit


# What events of a payment, its charges, refunds and disputes are called.
TOLD_OF = ("payment_intent.", "refund.", "charge.")
# From this version on a PaymentIntent is written as we read it: before, it held its charges and no `latest_charge`
# (docs.stripe.com/changelog/2022-11-15). Versions of our release's name differ by additions alone (docs.stripe.com/api/versioning).
FIRST_LIKE_OURS = "2022-11-15"
RELEASE = API_VERSION.partition(".")[2]


def _like_ours(version: str | None) -> bool:
    day, _, release = (version or "").partition(".")
    return release == RELEASE or FIRST_LIKE_OURS <= day <= API_VERSION[: len(FIRST_LIKE_OURS)]


def _observed(event_type: str, thing: dict[str, Any], *, version: str | None) -> Observed | None:
    owned = msgspec.convert(thing, Owned)
    if event_type.startswith("payment_intent."):
        if owned.reference is None or not _like_ours(version):
            return _to_look_up(owned.id, owned, bears_reference=True)
        found = objects.transaction(msgspec.convert(thing, PaymentIntent))
        return Observed(provider_payment_id=owned.id, reference=owned.reference, observations=found.observations)
    if event_type.startswith(("refund.", "charge.refund.", "charge.dispute.")):
        # Neither a refund nor a dispute of the dashboard says whose payment it is about.
        return _to_look_up(owned.payment_intent, owned, bears_reference=False)
    if event_type in ("charge.captured", "charge.refunded", "charge.expired"):
        return _to_look_up(owned.payment_intent, owned, bears_reference=True)
    return None


def _to_look_up(payment_id: str | None, owned: Owned, *, bears_reference: bool) -> Observed | None:
    # A refund says nothing of the capture it may have overtaken; the books show both, in their order.
    if payment_id is None:
        return None
    reference = owned.reference if bears_reference else None
    # The account may be used by others too, and anybody may have overwritten the metadata of ours.
    return Observed(provider_payment_id=payment_id, reference=reference, observations=None, strangers=bears_reference and reference is None)


# Answers


# What a look at something that is not there is answered with (docs.stripe.com/error-codes).
MISSING = "resource_missing"
# Types of an error that says that this request was not executed (docs.stripe.com/api/errors); idempotency_error speaks of an earlier one.
REFUSING_TYPES = frozenset({"card_error", "invalid_request_error"})


def _read_error(answer: Answer) -> ProviderError | None:
    error = _error(answer)
    return ProviderError(code=error.code or error.type, message=text_of(error.message)) if error.type in REFUSING_TYPES else None


# 401, 403, 409, 429 and 5xx say nothing of an earlier copy of the request.
ANSWERS = AnswerFormat(
    provider="stripe",
    read_error=_read_error,
    refusing_statuses=frozenset({400, 402, 404}),
    absence_codes=frozenset({MISSING}),
    success_statuses=frozenset({200}),
)


def _shown_object(answer: Answer, *kinds: str) -> dict[str, Any]:
    """Take the object of an answer that is Stripe's and of such a kind; raises IndeterminateResponse."""
    if ANSWERS.shown(answer).get("object") not in kinds:
        raise IndeterminateResponse(f"stripe's answer cannot be read: it is no {' or '.join(kinds)}")
    return answer.body


def _payment_of(answer: Answer, payment_id: str) -> dict[str, Any]:
    """Take the payment of an answer, which must be the one that was asked for: a proxy may answer with what it kept of another."""
    row = _shown_object(answer, "payment_intent")
    _meant(row.get("id"), ours=row.get("id") == payment_id)
    return row


def _meant(payment_id: Any, *, ours: bool) -> None:
    if not ours:
        raise IndeterminateResponse(f"stripe's answer cannot be read: it is about another payment ({payment_id})")


def _rows(answer: Answer) -> list[dict[str, Any]]:
    return _as(list[dict[str, Any]], _shown_object(answer, "list", "search_result").get("data"))


def _shown(prepared: Prepared, answer: Answer, reference: UUID) -> tuple[Observation, ...]:
    if prepared.operation == "refund":
        refund = msgspec.convert(_shown_object(answer, "refund"), Refund)
        _meant(refund.payment_intent, ours=refund.reference == reference)
        return (objects.refund_observed(refund),)
    void = reference if prepared.operation == "void" else None
    intent = msgspec.convert(_shown_object(answer, "payment_intent"), PaymentIntent)
    _meant(intent.id, ours=_is_about(prepared, intent, reference))
    return objects.transaction(intent, void=void).observations


def _is_about(prepared: Prepared, payment: PaymentIntent | Owned, reference: UUID) -> bool:
    """Tell whether a payment is the one that a call made or was to change."""
    if prepared.operation == "authorize":
        return payment.reference == reference
    if prepared.operation == "refund":
        return bool(requests.fields_of_form(prepared.body)["payment_intent"] == payment.id)
    return f"{urlsplit(prepared.path).path}/".startswith(f"{requests.path_of(payment.id)}/")


def _refused(prepared: Prepared, answer: Answer, reference: UUID) -> tuple[Observation, ...]:
    error, told = _error(answer), answer.body["error"].get("payment_intent")
    if told is not None:
        owned = msgspec.convert(told, Owned)
        _meant(owned.id, ours=_is_about(prepared, owned, reference))
    if told is not None and prepared.operation == "authorize":
        shown = objects.transaction(msgspec.convert(told, PaymentIntent)).observations
        # A payment that was made and not confirmed, because the request was bad, waits for nothing.
        if any(each.status is not TransactionStatus.PENDING for each in shown):
            return shown
    if told is not None and prepared.operation == "void" and told.get("status") == "canceled":
        # Somebody was there before us; what was to be let go is.
        return objects.transaction(msgspec.convert(told, PaymentIntent), void=reference).observations
    if prepared.operation == "confirm":
        raise IndeterminateResponse(f"stripe answered {answer.status}")
    if error.type == "card_error":
        return (_not_done(prepared, TransactionStatus.DECLINED, error.reason, answer, reference),)
    # An error about the request itself, or about the state of the payment: it was not executed.
    return (_not_done(prepared, TransactionStatus.FAILED, error.code or f"http_{answer.status}", answer, reference),)


def _not_done(prepared: Prepared, status: TransactionStatus, code: str, answer: Answer, reference: UUID) -> Observation:
    sent, error = requests.fields_of_form(prepared.body), _error(answer)
    currency = str(sent.get("currency", "")).upper()
    amount = int(sent.get("amount", sent.get("amount_to_capture", 0)))
    return Observation(
        operation=Operation(prepared.operation),
        status=status,
        amount=from_stripe(amount, currency) if currency else amount,
        currency=currency,
        provider_payment_id="",
        provider_txn_id=None,
        reference=reference,
        decline_code=code,
        raw=told_back(
            {"status": answer.status, "code": error.code, "advice_code": error.advice_code, "message": (error.message or "")[:200]},
            [str(sent.get("payment_method") or "")],
        ),
    )


def _error(answer: Answer) -> PaymentError:
    try:
        return msgspec.convert(answer.body.get("error"), PaymentError)
    except msgspec.ValidationError:
        return PaymentError()


def _remembered_failure(answer: Answer) -> bool:
    """Whether Stripe repeats an error of its own that it keeps with the idempotency key."""
    return answer.status >= 500 and _error(answer).type == "api_error" and answer.headers.get("idempotent-replayed") == "true"


def _as(kind: type[T], value: Any) -> T:
    with ANSWERS.reading():
        return msgspec.convert(value, kind)


def _age_seconds(reference: UUID) -> float:
    return time.time() - objects.minted_at(reference).timestamp()
