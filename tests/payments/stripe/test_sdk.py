"""Stripe's own library drives the sandbox's face of Stripe: the independent judge of its shape."""

from collections.abc import AsyncIterator
from types import NoneType
from typing import Any, get_args

import pytest
import stripe

from deploy.sandbox.server import Account, Sandbox
from shared.ids import new_id
from tests.world import SANDBOX_KEY, WEBHOOK_SECRET, a_sandbox


@pytest.fixture(scope="module")
async def sandbox() -> AsyncIterator[Sandbox]:
    async with a_sandbox(webhook_url="http://127.0.0.1:9/nobody") as made:
        made.account = Account(multicapture=True, search_lag_seconds=0)
        yield made


@pytest.fixture(scope="module")
async def client(sandbox: Sandbox) -> AsyncIterator[stripe.StripeClient]:
    http = stripe.AIOHTTPClient()
    yield stripe.StripeClient(SANDBOX_KEY, base_addresses={"api": sandbox.base_url}, http_client=http, max_network_retries=0)
    await http.close_async()  # type: ignore[no-untyped-call]


async def a_payment(client: stripe.StripeClient, **changes: Any) -> stripe.PaymentIntent:
    wanted: Any = {
        "amount": 10_000,
        "currency": "eur",
        "payment_method": "pm_card_visa",
        "allowed_payment_method_types": ["card"],
        "capture_method": "manual",
        "confirm": True,
        "metadata": {"shop": "1"},
        **changes,
    }
    return await client.v1.payment_intents.create_async(wanted)


# Of the library itself; of connected accounts, pending and failed refunds only; and younger than the shapes of 2026-08-21.
NOT_FIELDS = {
    *("_inner_class_types", "_field_encodings", "OBJECT_NAME"),
    *("transfer", "pending_reason", "failure_balance_transaction"),
    "payment_record",
}


def fits(thing: Any, kind: type) -> None:
    """Insist that every field is one the library knows, and that none is missing that may not be null."""
    known = kind.__annotations__
    fields = set(thing.to_dict())
    assert fields <= known.keys() | {"object"}, fields - known.keys()
    # Not by its text: Python 3.14 writes "Optional[X]" as "X | None".
    may_be_left_out = {name for name, hint in known.items() if NoneType in get_args(hint) or name == "deleted"}
    assert known.keys() - may_be_left_out - fields - NOT_FIELDS == set()


class TestLife:
    async def test_a_payment_held_captured_in_parts_and_refunded(self, client: stripe.StripeClient) -> None:
        held = await a_payment(client, payment_method_options={"card": {"request_multicapture": "if_available"}})
        part = await client.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 4_000, "final_capture": False})
        last = await client.v1.payment_intents.capture_async(
            held.id, {"amount_to_capture": 5_000, "metadata": {"parcel": "2"}, "expand": ["latest_charge.refunds"]}
        )
        refund = await client.v1.refunds.create_async({"payment_intent": held.id, "amount": 700, "reason": "requested_by_customer"})

        assert (held.status, held.amount_capturable) == ("requires_capture", 10_000)
        assert (part.status, part.amount_capturable, part.amount_received) == ("requires_capture", 6_000, 4_000)
        assert (last.status, last.amount_received, last.metadata.to_dict()) == ("succeeded", 9_000, {"shop": "1", "parcel": "2"})
        assert isinstance(last.latest_charge, stripe.Charge)
        assert (last.latest_charge.amount_captured, last.latest_charge.captured) == (9_000, True)
        assert (refund.status, refund.amount, refund.payment_intent) == ("succeeded", 700, held.id)
        fits(held, stripe.PaymentIntent)
        fits(last.latest_charge, stripe.Charge)
        fits(refund, stripe.Refund)

    async def test_without_multicapture_the_first_capture_lets_go_of_the_rest(self, client: stripe.StripeClient) -> None:
        held = await a_payment(client)
        with pytest.raises(stripe.InvalidRequestError):
            await client.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 1, "final_capture": False})

        captured = await client.v1.payment_intents.capture_async(held.id, {"amount_to_capture": 4_000})

        assert (captured.status, captured.amount_capturable, captured.amount_received) == ("succeeded", 0, 4_000)

    async def test_a_payment_made_first_and_confirmed_later(self, client: stripe.StripeClient) -> None:
        made = await a_payment(client, confirm=False, capture_method="automatic")
        confirmed = await client.v1.payment_intents.confirm_async(made.id, {"payment_method": "pm_card_mastercard"})

        assert (made.status, confirmed.status, confirmed.amount_received) == ("requires_confirmation", "succeeded", 10_000)

    async def test_a_payment_canceled(self, client: stripe.StripeClient) -> None:
        held = await a_payment(client)

        canceled = await client.v1.payment_intents.cancel_async(held.id, {"cancellation_reason": "duplicate"})

        assert (canceled.status, canceled.cancellation_reason, canceled.amount_capturable) == ("canceled", "duplicate", 0)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await client.v1.payment_intents.cancel_async(held.id)
        assert refused.value.code == "payment_intent_unexpected_state"

    async def test_a_customer_who_must_act(self, client: stripe.StripeClient, sandbox: Sandbox) -> None:
        waiting = await a_payment(client, payment_method="pm_card_threeDSecure2Required", return_url="https://shop.example/back")
        assert waiting.next_action is not None
        assert waiting.next_action.redirect_to_url is not None
        url = waiting.next_action.redirect_to_url.url

        sandbox.books.decide(sandbox.books.get(waiting.id), passed=True)
        after = await client.v1.payment_intents.retrieve_async(waiting.id)

        assert (waiting.status, after.status) == ("requires_action", "requires_capture")
        assert url is not None
        assert url.startswith(sandbox.base_url)
        assert after.next_action is None


class TestReading:
    async def test_lists_page_by_the_librarys_own_paging(self, client: stripe.StripeClient) -> None:
        made = [(await a_payment(client)).id for _ in range(5)]

        page = await client.v1.payment_intents.list_async({"limit": 2, "created": {"gte": 1_700_000_000}, "expand": ["data.latest_charge"]})
        listed = [payment async for payment in page.auto_paging_iter()]

        assert [p.id for p in listed][:5] == made[::-1]
        assert all(isinstance(p.latest_charge, stripe.Charge) for p in listed[:5])

    async def test_search_finds_by_metadata(self, client: stripe.StripeClient) -> None:
        mark = new_id().hex
        payment = await a_payment(client, metadata={"mark": mark})

        found = await client.v1.payment_intents.search_async({"query": f"metadata['mark']:'{mark}'"})
        nothing = await client.v1.payment_intents.search_async({"query": "metadata['mark']:'other'"})

        assert [p.id for p in found.data] == [payment.id]
        assert nothing.data == []

    async def test_charges_refunds_and_disputes(self, client: stripe.StripeClient) -> None:
        payment = await a_payment(client, payment_method="pm_card_createDispute", capture_method="automatic")
        charge = await client.v1.charges.retrieve_async(str(payment.latest_charge), {"expand": ["refunds", "payment_intent"]})
        [dispute] = (await client.v1.disputes.list_async({"payment_intent": payment.id})).data

        assert charge.disputed
        assert charge.refunds is not None
        assert charge.refunds.data == []
        assert isinstance(charge.payment_intent, stripe.PaymentIntent)
        assert (dispute.status, dispute.amount, dispute.charge) == ("needs_response", 10_000, charge.id)
        assert (await client.v1.disputes.retrieve_async(dispute.id)).id == dispute.id
        fits(dispute, stripe.Dispute)

    async def test_refunds_are_listed_and_read(self, client: stripe.StripeClient) -> None:
        payment = await a_payment(client, capture_method="automatic")
        first, second = [await client.v1.refunds.create_async({"payment_intent": payment.id, "amount": n}) for n in (1, 2)]

        listed = (await client.v1.refunds.list_async({"payment_intent": payment.id})).data

        assert [r.id for r in listed] == [second.id, first.id]
        assert (await client.v1.refunds.retrieve_async(first.id)).amount == 1


class TestErrors:
    async def test_a_decline(self, client: stripe.StripeClient) -> None:
        with pytest.raises(stripe.CardError) as declined:
            await a_payment(client, payment_method="pm_card_visa_chargeDeclinedLostCard")

        error: Any = declined.value.error
        assert (declined.value.http_status, declined.value.code, error.decline_code) == (402, "card_declined", "lost_card")
        assert error.payment_intent.status == "requires_payment_method"
        assert error.payment_intent.last_payment_error.decline_code == "lost_card"

    @pytest.mark.parametrize(
        ("changes", "code", "param"),
        [
            ({"amount": 0}, "parameter_invalid_integer", "amount"),
            ({"amount": 10**9}, "amount_too_large", "amount"),
            ({"payment_method": "pm_nobody"}, "resource_missing", "payment_method"),
            ({"colour": "red"}, "parameter_unknown", "colour"),
            ({"currency": ""}, "parameter_missing", "currency"),
        ],
    )
    async def test_bad_parameters(self, client: stripe.StripeClient, changes: Any, code: str, param: str) -> None:
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await a_payment(client, **changes)

        assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
        assert refused.value.request_id

    async def test_a_wrong_key(self, sandbox: Sandbox) -> None:
        http = stripe.AIOHTTPClient()
        stranger = stripe.StripeClient("sk_test_wrong", base_addresses={"api": sandbox.base_url}, http_client=http)

        with pytest.raises(stripe.AuthenticationError):
            await stranger.v1.payment_intents.retrieve_async("pi_1")
        await http.close_async()  # type: ignore[no-untyped-call]

    async def test_what_is_not_there(self, client: stripe.StripeClient) -> None:
        with pytest.raises(stripe.InvalidRequestError) as missing:
            await client.v1.payment_intents.retrieve_async("pi_nowhere")

        assert (missing.value.http_status, missing.value.code) == (404, "resource_missing")

    async def test_amounts_over_what_there_is(self, client: stripe.StripeClient) -> None:
        payment = await a_payment(client)
        with pytest.raises(stripe.InvalidRequestError) as too_early:
            await client.v1.refunds.create_async({"payment_intent": payment.id})
        with pytest.raises(stripe.InvalidRequestError) as too_much:
            await client.v1.payment_intents.capture_async(payment.id, {"amount_to_capture": 10_001})
        await client.v1.payment_intents.capture_async(payment.id)
        await client.v1.refunds.create_async({"payment_intent": payment.id})
        with pytest.raises(stripe.InvalidRequestError) as twice:
            await client.v1.refunds.create_async({"payment_intent": payment.id, "amount": 1})

        assert [each.value.code for each in (too_early, too_much, twice)] == [
            "charge_not_captured",
            "amount_too_large",
            "charge_already_refunded",
        ]


class TestIdempotency:
    async def test_the_same_key_is_the_same_payment(self, client: stripe.StripeClient) -> None:
        key = new_id().hex
        wanted: Any = {"amount": 500, "currency": "eur", "payment_method": "pm_card_visa", "confirm": True}

        first, again = [await client.v1.payment_intents.create_async(wanted, {"idempotency_key": key}) for _ in range(2)]

        assert first.id == again.id
        assert again.last_response is not None
        assert dict(again.last_response.headers or {})["idempotent-replayed"] == "true"

    async def test_the_same_key_for_something_else_is_refused(self, client: stripe.StripeClient) -> None:
        key = new_id().hex
        wanted: Any = {"amount": 500, "currency": "eur"}
        other: Any = {**wanted, "amount": 501}
        await client.v1.payment_intents.create_async(wanted, {"idempotency_key": key})

        with pytest.raises(stripe.IdempotencyError):
            await client.v1.payment_intents.create_async(other, {"idempotency_key": key})

    async def test_a_failure_of_stripes_own_is_remembered(self, client: stripe.StripeClient, sandbox: Sandbox) -> None:
        key = new_id().hex
        wanted: Any = {"amount": 500, "currency": "eur", "payment_method": "tok_500_once", "confirm": True}

        for _ in range(2):
            with pytest.raises(stripe.APIError) as failed:
                await client.v1.payment_intents.create_async(wanted, {"idempotency_key": key})

            assert failed.value.http_status == 500


class TestEvents:
    async def test_are_signed_as_the_library_checks_and_hold_what_it_knows(self, client: stripe.StripeClient, sandbox: Sandbox) -> None:
        before = set(sandbox.stripe.events)
        payment = await a_payment(client, payment_method="pm_card_createDispute")
        await client.v1.payment_intents.capture_async(payment.id)

        told = [each for event_id, each in sandbox.stripe.events.items() if event_id not in before]

        kinds: dict[str, type] = {"payment_intent": stripe.PaymentIntent, "charge": stripe.Charge, "dispute": stripe.Dispute}
        seen = []
        for each in told:
            signature = sandbox.stripe.headers(each)["Stripe-Signature"]
            event = stripe.Webhook.construct_event(each.body, signature, WEBHOOK_SECRET)
            thing = event.data.object
            fits(event, stripe.Event)
            fits(thing, kinds[thing["object"]])
            seen.append(event.type)
        assert seen == [
            "charge.succeeded",
            "payment_intent.amount_capturable_updated",
            "charge.captured",
            "payment_intent.succeeded",
            "charge.dispute.created",
            "charge.dispute.funds_withdrawn",
        ]

    async def test_can_be_read_later(self, client: stripe.StripeClient, sandbox: Sandbox) -> None:
        await a_payment(client)

        [newest] = (await client.v1.events.list_async({"limit": 1, "type": "payment_intent.amount_capturable_updated"})).data

        assert (await client.v1.events.retrieve_async(newest.id)).type == newest.type
