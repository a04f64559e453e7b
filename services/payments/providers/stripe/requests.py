"""Writing Stripe's requests: for the same request always the same bytes."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from services.payments.domain.guards import UnsupportedByProvider
from services.payments.providers import (
    AuthorizeRequest,
    Captured,
    CaptureRequest,
    ConfirmRequest,
    Prepared,
    RefundRequest,
    Request,
    VoidRequest,
)
from services.payments.providers.stripe import objects
from services.payments.providers.stripe.amounts import chargeable, to_stripe

METADATA_VALUE_MAX_CHARACTERS = 500
# docs.stripe.com/payments/multicapture: "up to 50 times for a single PaymentIntent".
CAPTURES_MAX = 50
# So many earlier captures go into one key of metadata: a reference and an amount take 46 of its 500 characters.
CAPTURES_A_KEY = 10
# So many notes of captures that took nothing are unset at a time: a request has fifty keys at most.
UNSET_MAX = 20
REFUND_REASONS = frozenset({"duplicate", "fraudulent", "requested_by_customer"})
# With every payment comes its charge, and with that its first ten refunds.
WITH_CHARGE = "latest_charge.refunds"


def prepare(request: Request, *, multicapture: bool) -> Prepared:
    """Write the exact call for a request; refuses an amount that Stripe cannot express."""
    match request:
        case AuthorizeRequest():
            return _post("authorize", "/v1/payment_intents", _authorization(request, multicapture=multicapture))
        case ConfirmRequest():
            # Stripe goes on by itself once the customer has acted; all there is to do is to look.
            path = f"{path_of(request.provider_payment_id)}?{urlencode({'expand[0]': WITH_CHARGE})}"
            return Prepared(operation="confirm", method="GET", path=path, body=b"")
        case CaptureRequest():
            return _post("capture", f"{path_of(request.provider_payment_id)}/capture", _capture(request, multicapture=multicapture))
        case VoidRequest():
            return _post("void", f"{path_of(request.provider_payment_id)}/cancel", {"expand": [WITH_CHARGE]})
        case RefundRequest():
            return _post("refund", "/v1/refunds", _refund(request))


def path_of(payment_id: str) -> str:
    """Say where a payment lies."""
    return f"/v1/payment_intents/{quote(payment_id, safe='')}"


def _post(operation: str, path: str, fields: Mapping[str, Any]) -> Prepared:
    return Prepared(operation=operation, method="POST", path=path, body=form(fields))


def _authorization(request: AuthorizeRequest, *, multicapture: bool) -> dict[str, Any]:
    options = {"payment_method_options": {"card": {"request_multicapture": "if_available"}}} if multicapture else {}
    # Without an address to come back to the customer cannot be sent to the bank: then it is a decline, not a dead end.
    action = {"return_url": request.return_url} if request.return_url else {"error_on_requires_action": True}
    return {
        "amount": chargeable(request.amount, request.currency),
        "currency": request.currency.lower(),
        "payment_method": request.payment_method,
        "allowed_payment_method_types": ["card"],
        **options,
        "capture_method": "manual",
        "confirm": True,
        **action,
        "metadata": {objects.REFERENCE: str(request.reference), objects.ORDER: str(request.order_id)},
        "expand": [WITH_CHARGE],
    }


def _capture(request: CaptureRequest, *, multicapture: bool) -> dict[str, Any]:
    amount = to_stripe(request.amount, request.currency)
    final = request.final or not multicapture
    if len(request.earlier) >= CAPTURES_MAX:
        raise UnsupportedByProvider(f"Stripe captures a payment at most {CAPTURES_MAX} times.", {"captures_max": CAPTURES_MAX})
    return {
        "amount_to_capture": amount,
        **({"final_capture": final} if multicapture else {}),
        "metadata": {
            f"{objects.CAPTURE_PREFIX}{request.reference.hex}": f"{amount} {objects.FINAL}" if final else str(amount),
            **_together(request.earlier, request.currency),
            # A declined capture may have left its note, which would claim the money of this one.
            **{f"{objects.CAPTURE_PREFIX}{reference.hex}": "" for reference in request.undone[-UNSET_MAX:]},
        },
        "expand": [WITH_CHARGE],
    }


def _together(earlier: Sequence[Captured], currency: str) -> dict[str, str]:
    """Note earlier captures ten to a key, and unset the keys of their own; those that do not make up ten keep theirs."""
    notes: dict[str, str] = {}
    for number in range(len(earlier) // CAPTURES_A_KEY):
        ten = earlier[number * CAPTURES_A_KEY : (number + 1) * CAPTURES_A_KEY]
        entries = [f"{each.reference.hex}:{to_stripe(each.amount, currency)}" for each in ten]
        notes[f"{objects.CAPTURES_PREFIX}{number}"] = " ".join(entries)
        # An empty value unsets a key (docs.stripe.com/api/metadata).
        notes |= {f"{objects.CAPTURE_PREFIX}{each.reference.hex}": "" for each in ten}
    return notes


def _refund(request: RefundRequest) -> dict[str, Any]:
    reason = request.reason[:METADATA_VALUE_MAX_CHARACTERS]
    return {
        "payment_intent": request.provider_payment_id,
        "amount": to_stripe(request.amount, request.currency),
        **({"reason": request.reason} if request.reason in REFUND_REASONS else {}),
        "metadata": {objects.REFERENCE: str(request.reference), **({objects.REASON: reason} if reason else {})},
    }


def form(fields: Mapping[str, Any]) -> bytes:
    """Write nested fields as Stripe's forms have them: `a[b]=…`, `list[0]=…`, booleans in words."""
    return urlencode(list(_flat(fields, ""))).encode()


def _flat(value: Any, name: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}[{key}]" if name else str(key))
    elif isinstance(value, list):
        for n, inner in enumerate(value):
            yield from _flat(inner, f"{name}[{n}]")
    else:
        yield name, str(value).lower() if isinstance(value, bool) else str(value)


def fields_of_form(raw: bytes) -> dict[str, Any]:
    """Read a form of ours back, for the audit: one level of nesting, which is all that the audit keeps."""
    fields: dict[str, Any] = {}
    for name, value in parse_qsl(raw.decode()):
        outer, _, inner = name.partition("[")
        if inner:
            fields.setdefault(outer, {})[inner.rstrip("]")] = value
        else:
            fields[outer] = value
    return fields
