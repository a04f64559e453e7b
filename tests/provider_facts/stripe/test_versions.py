"""Which version of Stripe's API we speak, and what its versions change of what we send and read."""

from typing import Any

import msgspec
import pytest
import stripe as library
from stripe._api_version import _ApiVersion

from deploy.sandbox.faces import stripe_versions
from services.payments.domain.intents import Operation
from services.payments.providers.stripe import API_VERSION
from shared.http_client import recorded
from shared.ids import new_id
from tests.provider_facts.stripe.conftest import OLD, Stripe


def test_we_speak_the_version_that_the_library_pins() -> None:
    assert API_VERSION == stripe_versions.CURRENT == _ApiVersion.CURRENT == library.api_version


async def test_every_call_names_it(stripe: Stripe) -> None:
    """docs.stripe.com/api/versioning: the header Stripe-Version overrides what the account has."""
    stripe.sandbox.account.api_version = OLD

    payment_id = await stripe.hold()
    await stripe.void(payment_id)

    assert stripe.at_stripe(payment_id).moved("let_go") == 0


async def test_a_version_that_is_none_is_refused(stripe: Stripe) -> None:
    answer = await stripe.http.get("/v1/payment_intents", headers={"Stripe-Version": "yesterday"})

    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


class TestPaymentMethodTypes:
    """docs.stripe.com/changelog/endive/2026-09-30/removes-the-payment-method-types-parameter-from-payment-intents-and-setup-intents"""

    @pytest.mark.parametrize(("version", "status"), [(API_VERSION, 400), ("2026-08-26.dahlia", 200), (OLD, 200)])
    async def test_cannot_be_written_any_more(self, stripe: Stripe, version: str, status: int) -> None:
        form = {"amount": "500", "currency": "eur", "payment_method_types[]": "card"}

        answer = await stripe.http.post("/v1/payment_intents", data=form, headers={"Stripe-Version": version})

        assert answer.status_code == status
        assert status == 200 or answer.json()["error"]["code"] == "payment_method_types_no_longer_supported"

    async def test_we_say_which_are_allowed(self, stripe: Stripe) -> None:
        with recorded() as calls:
            await stripe.hold()

        assert [call.response["status"] for call in calls] == ["requires_capture"]


class TestEventsOfOtherVersions:
    """docs.stripe.com/api/events/object#event_object-api_version: an event's object is as the version says that was in force for it."""

    def an_event(self, version: str | None, **changes: Any) -> bytes:
        thing = {
            "id": "pi_1",
            "object": "payment_intent",
            "amount": 1000,
            "currency": "eur",
            "status": "requires_capture",
            "created": 1_760_000_000,
            "metadata": {"tender_reference": str(new_id())},
            "latest_charge": "ch_1",
            **changes,
        }
        return msgspec.json.encode({"id": "evt_1", "object": "event", "api_version": version, "data": {"object": thing}})

    @pytest.mark.parametrize("version", [API_VERSION, "2026-11-18.endive", "2025-08-27.basil", OLD, "2022-11-15"])
    def test_is_read_where_it_is_written_as_ours(self, stripe: Stripe, version: str) -> None:
        seen = stripe.adapter.observe("payment_intent.amount_capturable_updated", self.an_event(version))

        assert seen is not None
        assert [o.operation for o in seen.observations or ()] == [Operation.AUTHORIZE]

    @pytest.mark.parametrize("version", ["2022-08-01", "2020-08-27", "2027-03-31.fennel", "", None])
    @pytest.mark.parametrize("changes", [{}, {"amount": {"value": 1000}}, {"latest_charge": None, "charges": {"data": []}}])
    def test_is_looked_up_where_it_may_be_written_otherwise(self, stripe: Stripe, version: str | None, changes: dict[str, Any]) -> None:
        """changelog/2022-11-15: `charges` became `latest_charge`; so a canceled one of before would read as never held."""
        seen = stripe.adapter.observe("payment_intent.canceled", self.an_event(version, status="canceled", **changes))

        assert seen is not None
        assert (seen.provider_payment_id, seen.observations) == ("pi_1", None)
        assert seen.reference is not None

    def test_of_a_stranger_is_told_in_any(self, stripe: Stripe) -> None:
        seen = stripe.adapter.observe("payment_intent.canceled", self.an_event("2019-05-16", metadata={}))

        assert seen is not None
        assert seen.strangers

    async def test_the_simulation_writes_what_was_written_then(self, stripe: Stripe) -> None:
        payment_id = await stripe.hold()

        thing = (await stripe.http.get(f"/v1/payment_intents/{payment_id}", headers={"Stripe-Version": "2020-08-27"})).json()

        assert "latest_charge" not in thing
        assert [charge["refunds"]["data"] for charge in thing["charges"]["data"]] == [[]]
