"""Making the sandbox's books drift from ours: what a provider's own mishaps, or its dashboard, leave behind."""

from typing import Any

import msgspec
from litestar import Response, Router, post
from litestar.params import FromPath

from deploy.sandbox.books import Books, Operation, Payment, Refused
from deploy.sandbox.faces.own import OWN, shown
from deploy.sandbox.server import HttpRequest, json_response, sandbox_of
from shared.ids import new_id
from shared.money import Money, decimal_text


class Drift(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What is to become of the books: `forget` (all of it, or one operation), `duplicate`, or other figures."""

    forget: bool = False
    duplicate: bool = False
    # Which operation is meant; the whole thing when none is.
    kind: str | None = None
    amount: int | None = None
    currency: str | None = None
    status: str | None = None


@post("/control/drift/payments/{payment_id:str}", status_code=200)
async def drift_payment(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    """Have the books of payments say something else; nobody is told."""
    books = sandbox_of(request).books
    payment, wanted = books.get(payment_id), msgspec.json.decode(await request.body(), type=Drift)
    operation = None if wanted.kind is None else _operation(payment, wanted.kind)
    if wanted.forget and operation is None:
        books.forget(payment)
        return shown(payment)
    if wanted.duplicate and operation is None:
        return shown(_twin(books, payment))
    if wanted.forget and operation is not None:
        payment.operations.remove(operation)
    elif wanted.duplicate and operation is not None:
        payment.operations.append(msgspec.structs.replace(operation, id=f"{operation.kind[:3]}_{new_id().hex}"))
    for each in payment.operations if operation is None else [operation]:
        each.amount = wanted.amount if wanted.amount is not None else each.amount
        each.status = wanted.status or each.status
    payment.currency = wanted.currency or payment.currency
    books.keep(payment)
    return shown(payment)


def _operation(payment: Payment, kind: str) -> Operation:
    found = next((each for each in payment.operations if each.kind == kind), None)
    if found is None:
        raise Refused(404, "unknown_operation", f"There is no {kind}")
    return found


def _twin(books: Books, payment: Payment) -> Payment:
    """The same payment once more, under another name: what an ignored idempotency key leaves behind."""
    operations = [msgspec.structs.replace(each, id=f"{each.kind[:3]}_{new_id().hex}") for each in payment.operations]
    prefix = payment.id.partition("_")[0]
    return books.keep(msgspec.structs.replace(payment, id=f"{prefix}_{new_id().hex}", operations=operations))


@post("/control/drift/labels/{label_id:str}", status_code=200)
async def drift_label(request: HttpRequest, label_id: FromPath[str]) -> Response[bytes]:
    """Have the carrier's books say something else; nobody is told."""
    carrier = sandbox_of(request).carrier
    label, wanted = carrier.get(label_id), msgspec.json.decode(await request.body(), type=Drift)
    if wanted.forget:
        carrier.forget(label)
    elif wanted.duplicate:
        label = carrier.keep(msgspec.structs.replace(label, id=f"lbl_{new_id().hex}"))
    else:
        label.amount = wanted.amount if wanted.amount is not None else label.amount
        label.currency, label.status = wanted.currency or label.currency, wanted.status or label.status
        carrier.keep(label)
    return json_response(msgspec.json.encode({"id": label.id}))


@post("/control/drift/taxes/{key:str}", status_code=200)
async def drift_tax(request: HttpRequest, key: FromPath[str]) -> Response[bytes]:
    """Have the tax office's books say something else; nobody is told. Amounts are cents."""
    office, wanted = sandbox_of(request).taxes, msgspec.json.decode(await request.body(), type=Drift)
    document = office.documents.get(key)
    if document is None:
        raise Refused(404, "unknown_document", f"No such document: {key}")
    if wanted.forget:
        office.forget(document)
    elif wanted.duplicate:
        document = office.keep(msgspec.structs.replace(document, key=f"{new_id()}"))
    else:
        document.tax = document.tax if wanted.amount is None else decimal_text(Money(wanted.amount, "USD"))
        document.currency, document.status = wanted.currency or document.currency, wanted.status or document.status
        office.keep(document)
    return json_response(msgspec.json.encode({"id": document.key}))


def refused(_: Any, said: Refused) -> Response[bytes]:
    """Say no as the sandbox's own face does."""
    return json_response(OWN.error(said), said.status)


router = Router(path="/", route_handlers=[drift_payment, drift_label, drift_tax], exception_handlers={Refused: refused})
