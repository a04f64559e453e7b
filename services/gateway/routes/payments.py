"""Payments: quote, authorize, confirm, capture, void, refund, accepting what does not fit, and the old way that does it all in one."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta

from services.gateway.domain import Forbidden, refuse_card_numbers
from services.gateway.handlers.commands import SubmitPayment, SubmitResult
from services.gateway.routes.answers import CHECKOUT, FINANCE, carry_out, documented, gateway_of, principal_of
from services.gateway.routes.customers import SUNSET
from shared.contracts.orders import ITEMS_MAX, CurrencyCode, PositiveAmount, Token
from shared.contracts.payments import AcceptFacts, Authorize, Capture, Confirm, IntentView, PaymentView, Quote, Refund, SnapshotView, Void
from shared.errors import Invalid
from shared.outbound import OutboundUrlInvalid, check_return_url
from shared.received import HttpRequest
from shared.refund_shares import RefundLine
from shared.vault import payment_method_place

# The wrapper goes when storefronts have moved to authorize and capture (RFC 9745, RFC 8594).
SUBMIT_DEPRECATED = "@1793491200"

ACCEPT_REASON_MAX_CHARACTERS = 2_000

ReturnUrl = Annotated[str, Meta(pattern="^https?://", max_length=2000)]


class QuoteBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which order to quote, with whom it will be paid, and how shipped: by a rate that was shown, by a service, or the cheapest way."""

    order_id: UUID
    payment_provider: Annotated[str, Meta(min_length=1, max_length=60)] | None = None
    shipping_rate_id: UUID | None = None
    shipping_service: Annotated[str, Meta(min_length=1, max_length=200)] | None = None


class AuthorizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which frozen price to pay, and with what, unless it is zero; amount and currency, if sent, must be the quoted ones."""

    snapshot_id: UUID
    payment_method: Token | None = None
    amount: PositiveAmount | None = None
    currency: CurrencyCode | None = None
    return_url: ReturnUrl | None = None


class SubmitBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """With what to pay, unless there is nothing to pay; without a snapshot the order is quoted first."""

    payment_method: Token | None = None
    snapshot_id: UUID | None = None
    amount: PositiveAmount | None = None
    currency: CurrencyCode | None = None
    return_url: ReturnUrl | None = None


class CaptureBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much to take; all that is left when no amount is sent. `final` releases the rest."""

    amount: PositiveAmount | None = None
    currency: CurrencyCode | None = None
    final: bool = False


class RefundLineBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much to give back of one line, by its position from 0, with its tax."""

    line: Annotated[int, Meta(ge=0, lt=ITEMS_MAX)]
    amount: PositiveAmount


class RefundBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much to give back; all that is left when no amount is sent, or what the lines and shipping come to that are named.

    What names neither is shared by value among all lines, and its tax with it.
    """

    amount: PositiveAmount | None = None
    currency: CurrencyCode | None = None
    reason: Annotated[str, Meta(max_length=200)] = ""
    # No more than the payment's `overpaid_amount`, all of it by default, whatever the payment's status.
    overpaid: bool = False
    lines: Annotated[list[RefundLineBody], Meta(max_length=ITEMS_MAX)] = []
    shipping: PositiveAmount | None = None

    @property
    def shares(self) -> tuple[RefundLine, ...]:
        """What of it is for which line, shipping last."""
        shipping = () if self.shipping is None else (RefundLine(line=None, amount=self.shipping),)
        return (*(RefundLine(line=each.line, amount=each.amount) for each in self.lines), *shipping)


class AcceptBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The version of the payment that was looked at, and why what does not fit about it is accepted."""

    version: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    reason: Annotated[str, Meta(min_length=1, max_length=ACCEPT_REASON_MAX_CHARACTERS)]


@post(
    "/checkout/quote",
    before_request=CHECKOUT,
    tags=["Checkout"],
    summary="Freeze an order's price",
    responses=documented(201, SnapshotView, "The frozen price."),
)
async def quote(request: HttpRequest, data: JSONBody[QuoteBody]) -> Response[Any]:
    own = principal_of(request).order_id
    if own is not None and own != data.order_id:
        raise Forbidden("This token is for another order.", {"order_id": str(own)})
    return await carry_out(request, lambda _: Quote(**msgspec.structs.asdict(data)), data=data)


@post(
    "/checkout/orders/{order_id:uuid}/payments/authorize",
    before_request=CHECKOUT,
    tags=["Checkout"],
    summary="Hold the customer's money",
    responses=documented(
        201, PaymentView, "The payment: authorized, waiting for its customer (next_action), or captured where there is nothing to pay.", 402
    ),
)
async def authorize(request: HttpRequest, order_id: FromPath[UUID], data: JSONBody[AuthorizeBody]) -> Response[Any]:
    _check_return_url(data.return_url)
    method = _hidden(request, order_id, data.payment_method)
    return await carry_out(
        request,
        lambda key: Authorize(
            order_id=order_id,
            snapshot_id=data.snapshot_id,
            idempotency_key=_owned(request, key),
            payment_method=method,
            amount=data.amount,
            currency=data.currency,
            return_url=data.return_url,
        ),
        data=data,
    )


@post(
    "/checkout/orders/{order_id:uuid}/payments/{intent_id:uuid}/confirm",
    before_request=CHECKOUT,
    tags=["Checkout"],
    summary="Go on after the customer acted (3DS)",
    status_code=200,
    responses=documented(200, PaymentView, "The payment as it stands now.", 402),
)
async def confirm(request: HttpRequest, order_id: FromPath[UUID], intent_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda key: Confirm(order_id=order_id, intent_id=intent_id, idempotency_key=_owned(request, key)))


@post(
    "/admin/orders/{order_id:uuid}/payments/{intent_id:uuid}/capture",
    before_request=FINANCE,
    tags=["Payments"],
    summary="Take held money, all or part of it",
    responses=documented(201, PaymentView, "The payment after it, and the capture's own row.", 402),
)
async def capture(
    request: HttpRequest,
    order_id: FromPath[UUID],
    intent_id: FromPath[UUID],
    data: JSONBody[CaptureBody],
) -> Response[Any]:
    return await carry_out(
        request,
        lambda key: Capture(
            order_id=order_id,
            intent_id=intent_id,
            idempotency_key=_owned(request, key),
            amount=data.amount,
            currency=data.currency,
            final=data.final,
        ),
        data=data,
    )


@post(
    "/admin/orders/{order_id:uuid}/payments/{intent_id:uuid}/void",
    before_request=FINANCE,
    tags=["Payments"],
    summary="Release what is held and not captured",
    responses=documented(201, PaymentView, "The payment after it, and the void's own row.", 402),
)
async def void(request: HttpRequest, order_id: FromPath[UUID], intent_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda key: Void(order_id=order_id, intent_id=intent_id, idempotency_key=_owned(request, key)))


@post(
    "/admin/orders/{order_id:uuid}/payments/{intent_id:uuid}/refund",
    before_request=FINANCE,
    tags=["Payments"],
    summary="Give captured money back, all or part of it",
    responses=documented(201, PaymentView, "The payment after it, and the refund's own row.", 402),
)
async def refund(
    request: HttpRequest,
    order_id: FromPath[UUID],
    intent_id: FromPath[UUID],
    data: JSONBody[RefundBody],
) -> Response[Any]:
    return await carry_out(
        request,
        lambda key: Refund(
            order_id=order_id,
            intent_id=intent_id,
            idempotency_key=_owned(request, key),
            amount=data.amount,
            currency=data.currency,
            reason=data.reason,
            overpaid=data.overpaid,
            lines=data.shares,
        ),
        data=data,
    )


@post(
    "/admin/orders/{order_id:uuid}/payments/{intent_id:uuid}/accept",
    before_request=FINANCE,
    status_code=200,
    tags=["Payments"],
    summary="Accept the facts of a payment that needs attention, with the reason",
    responses=documented(
        200,
        IntentView,
        "The payment, whose status and amounts follow from the facts again; other facts that do not fit need attention anew. 412 when "
        "something has happened to it since that version.",
        412,
    ),
)
async def accept(request: HttpRequest, order_id: FromPath[UUID], intent_id: FromPath[UUID], data: JSONBody[AcceptBody]) -> Response[Any]:
    meant = AcceptFacts(order_id=order_id, intent_id=intent_id, version=data.version, reason=data.reason)
    return await carry_out(request, lambda _: meant, data=data)


@post(
    "/checkout/orders/{order_id:uuid}/submit-payment",
    before_request=CHECKOUT,
    tags=["Checkout"],
    summary="Quote if needed, authorize and capture in one (deprecated)",
    deprecated=True,
    responses=documented(
        201,
        SubmitResult,
        "How it ended: authorized and not captured is a result too; after `requires_action` the same key goes on.",
        402,
    ),
)
async def submit_payment(request: HttpRequest, order_id: FromPath[UUID], data: JSONBody[SubmitBody]) -> Response[Any]:
    _check_return_url(data.return_url)
    method = _hidden(request, order_id, data.payment_method)
    answer = await carry_out(
        request,
        lambda _: SubmitPayment(
            order_id=order_id,
            payment_method=method,
            snapshot_id=data.snapshot_id,
            amount=data.amount,
            currency=data.currency,
            return_url=data.return_url,
        ),
        data=data,
    )
    answer.headers.update({"Deprecation": SUBMIT_DEPRECATED, "Sunset": SUNSET})
    return answer


def _check_return_url(url: str | None) -> None:
    try:
        if url is not None:
            check_return_url(url)
    except OutboundUrlInvalid as invalid:
        raise Invalid(f"The return URL cannot be used: {invalid}.", {"field": "$.return_url"}) from invalid


def _hidden(request: HttpRequest, order_id: UUID, payment_method: str | None) -> str:
    """Wrap a payment method's token, so that it lies in no row and no queue as it is; what is a card number is refused."""
    if payment_method is None:
        return ""
    refuse_card_numbers(payment_method)
    principal = principal_of(request)
    place = payment_method_place(principal.store_id, principal.environment.value, order_id)
    return gateway_of(request).hide("payments", payment_method, info=place)


def _owned(request: HttpRequest, key: str) -> str:
    # Two principals may choose the same key for one payment; in the ledger they must not be one.
    return f"{principal_of(request).id}:{key}"


ROUTES = [quote, authorize, confirm, capture, void, refund, accept, submit_payment]
