"""Every page in a real browser: it is read by everybody, in both themes, on a phone, and nothing on it is refused or fails."""

import re
from typing import Any

import pytest
from playwright.async_api import Browser, StorageState, expect

from services.gateway.domain import Role
from shared.messages import Envelope
from tests.console.conftest import SCREENSHOTS
from tests.console.seat import Seat, eventually
from tests.console.shop import TRACE_ID, Shop, a_shippable_order, a_trace
from tests.reconciler.letters import an_envelope, letters, park, send, the_letter
from tests.world import World, a_key, until

EVERYWHERE = {
    "overview": ("/console", "unknown outcomes"),
    "orders": ("/console/orders", "partially refunded"),
    "attention": ("/console/attention", "Authorize of"),
    "events": ("/console/events", "payment.authorize.succeeded"),
    "dead-letters": ("/console/dead-letters", "payments.capture.v1"),
    "dead-letters-list": ("/console/dead-letters/list", "payments.capture.v1"),
    "shipments": ("/console/shipments", "sandbox ground"),
    "tax": ("/console/tax", "Exports made"),
    "reconciliation": ("/console/reconciliation", "amount"),
    "provider-calls": ("/console/provider-calls", "authorize"),
    "traces": ("/console/traces", "No traces here."),
    "keys": ("/console/keys", "Credentials of providers"),
    "audit": ("/console/audit", "payments.refund.v1"),
}


@pytest.mark.parametrize("name", EVERYWHERE)
async def test_a_page_is_read_by_everybody(seat: Seat, shop: Shop, name: str) -> None:
    path, text = EVERYWHERE[name]

    await eventually(seat, path, text)

    await seat.live()
    await seat.look(name)


async def test_the_page_of(seat: Seat, world: World, shop: Shop) -> None:
    payment = f"/console/orders/{shop.captured.order_id}/payments/{shop.captured.id}"
    await a_trace(world)
    pages = {
        "trace": f"/console/traces/{TRACE_ID}",
        "order": f"/console/orders/{shop.captured.order_id}",
        "order-declined": f"/console/orders/{shop.declined}",
        "capture": f"{payment}/capture",
        "refund": f"{payment}/refund?amount=5",
        "void": f"{payment}/void",
        "event": f"/console/events/{shop.event}",
        "dead-letter": f"/console/dead-letters/{shop.letter}",
        "dead-letter-edit": f"/console/dead-letters/{shop.letter}/edit",
    }
    for name, path in pages.items():
        await seat.open(path)
        await seat.look(name)


async def test_signing_in(browser: Browser, world: World) -> None:
    async with Seat.taken(browser, world, screenshots=SCREENSHOTS) as seat:
        await seat.press("Sign out")
        await seat.told("signed out")
        await seat.look("sign-in")
        seat.expects(401)
        await seat.sign_in("nonsense")
        await expect(seat.page.get_by_role("alert")).to_contain_text("not valid")


async def test_what_is_not_there(seat: Seat) -> None:
    seat.expects(404)
    await seat.open("/console/orders/0192f0c1-7e00-7000-8000-00000000dead")
    await expect(seat.page.get_by_role("alert")).to_contain_text("There is no order")
    await seat.look("not-there")
    await seat.open("/console/nonsense")


# Ways in which a text would run if a page took it for markup.
SCRIPTS = """
    document.body.insertAdjacentHTML("beforeend", '<b id="handler" onclick="window.ran = 1">x</b>');
    document.getElementById("handler").click();
    for (const [name, text] of [["text", "window.ran = 2"], ["src", "https://evil.example/x.js"]]) {
        const script = document.createElement("script");
        script[name] = text;
        document.body.append(script);
    }
"""


async def test_policy_stops_a_script_that_is_in_a_page(browser: Browser, world: World, signed_in: StorageState) -> None:
    """For a policy that lets through what a page should never have held."""
    async with Seat.taken(browser, world, screenshots=SCREENSHOTS, signed_in=signed_in) as seat:
        await seat.open("/console/orders")

        await seat.page.evaluate(SCRIPTS)
        await seat.page.wait_for_function("window.violations.length >= 3")

        assert await seat.page.evaluate("window.ran === undefined")
        stopped = await seat.page.evaluate("window.violations.map((each) => each.split(' ')[0])")
        assert set(stopped) == {"script-src-attr", "script-src-elem"}


class TestAnOrder:
    async def test_is_found_by_any_id_of_it_and_the_search_lives_in_the_address(self, seat: Seat, shop: Shop) -> None:
        for wanted in (str(shop.captured.order_id), str(shop.captured.id), shop.captured.at_the_provider().id):
            await seat.open("/console/orders")
            await seat.page.get_by_role("searchbox", name="Id", exact=True).fill(wanted)
            await seat.press("Show")
            await expect(seat.page.locator("tbody tr")).to_have_count(1)
            assert f"text={wanted}" in seat.page.url
            await seat.page.reload()
            await expect(seat.page.locator("tbody tr")).to_have_count(1)

        await seat.page.get_by_role("searchbox", name="Id", exact=True).fill("nothing like it")
        await seat.press("Show")
        await expect(seat.page.locator(".empty")).to_contain_text("Nothing fits")

    async def test_tells_why_it_was_declined(self, seat: Seat, shop: Shop) -> None:
        await seat.open("/console/orders?status=open")
        await seat.page.locator("tr", has_text="declined").get_by_role("link", name=str(shop.declined), exact=True).click()

        await expect(seat.page.locator(".payment")).to_contain_text("insufficient funds")

    async def test_adds_its_ledger_up(self, seat: Seat, shop: Shop) -> None:
        await seat.open(f"/console/orders/{shop.captured.order_id}")

        rows = [re.sub(r"\s+", " ", text) for text in await seat.page.locator(".payment tbody tr").all_inner_texts()]
        assert [re.findall(r"[\d.]+(?= EUR)", row) for row in rows] == [
            ["100.00", "100.00", "0.00", "0.00"],
            ["60.00", "100.00", "60.00", "0.00"],
            ["15.00", "100.00", "60.00", "15.00"],
        ]

    async def test_copies_an_id_on_a_click(self, seat: Seat, shop: Shop) -> None:
        await seat.open(f"/console/orders/{shop.captured.order_id}")

        await seat.page.get_by_role("button", name=f"Copy {shop.captured.order_id}", exact=True).first.click()

        assert await seat.page.evaluate("navigator.clipboard.readText()") == str(shop.captured.order_id)

    async def test_shows_what_happens_as_it_happens(self, seat: Seat, world: World) -> None:
        payment = await world.a_payment()
        await seat.open(f"/console/orders/{payment.order_id}")
        await seat.live()

        assert (await payment.capture(2_500)).status == 201

        await expect(seat.page.locator(".timeline")).to_contain_text("capture succeeded")
        await expect(seat.page.locator(".payment .facts")).to_contain_text("25.00")


class TestALivePage:
    async def test_leads_to_signing_in_once_its_session_is_over(self, browser: Browser, world: World) -> None:
        async with Seat.taken(browser, world, screenshots=SCREENSHOTS) as seat:
            await seat.open("/console/orders")
            await seat.live()
            await world.change(
                "DELETE FROM gateway.console_sessions WHERE created_at = (SELECT max(created_at) FROM gateway.console_sessions)"
            )

            await expect(seat.page.get_by_label("Key")).to_be_visible()

    async def test_lets_its_connection_go_while_nobody_looks(self, seat: Seat, world: World) -> None:
        payment = await world.a_payment()
        await seat.open(f"/console/orders/{payment.order_id}")
        await seat.live()
        await self._hide(seat, hidden=True)
        assert (await payment.capture(1_000)).status == 201
        await expect(seat.page.locator(".timeline")).not_to_contain_text("capture succeeded")

        await self._hide(seat, hidden=False)

        await expect(seat.page.locator(".timeline")).to_contain_text("capture succeeded")

    async def _hide(self, seat: Seat, *, hidden: bool) -> None:
        # What a browser does when another tab is chosen; a headless one has no other.
        await seat.page.evaluate(
            """(hidden) => {
                Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
                document.dispatchEvent(new Event("visibilitychange"));
            }""",
            hidden,
        )

    async def test_holds_still_while_somebody_works_in_it(self, seat: Seat, world: World) -> None:
        first, second = [await self._parked(world) for _ in range(2)]
        await seat.open("/console/dead-letters/list?text=still")
        await seat.live()
        await seat.page.evaluate("document.addEventListener('htmx:sseBeforeMessage', () => { window.told = (window.told || 0) + 1; })")
        await expect(seat.page.locator("tbody tr")).to_have_count(2)
        reason = seat.page.locator("fieldset", has_text="Those chosen").get_by_label("Reason")
        await reason.fill("half a")

        third = await self._parked(world)
        await until(lambda: seat.page.evaluate("window.told > 0"))
        await reason.press_sequentially(" sentence")

        assert await reason.input_value() == "half a sentence"
        await expect(seat.page.locator("tbody tr")).to_have_count(2)
        # Once nobody works in it, the next change is shown.
        await reason.fill("")
        await seat.page.get_by_role("heading", name="Dead letters", exact=True).click()
        fourth = await self._parked(world)
        await expect(seat.page.locator("tbody tr")).to_have_count(4)
        # What was chosen stays chosen, although the focus is elsewhere: the first choice is to retry.
        choice = seat.page.locator("fieldset", has_text="Those chosen").get_by_label("Do")
        await choice.select_option("discard")
        await seat.page.get_by_role("heading", name="Dead letters", exact=True).click()
        told = await seat.page.evaluate("window.told")
        fifth = await self._parked(world)
        await until(lambda: seat.page.evaluate(f"window.told > {told}"))
        assert await choice.input_value() == "discard"
        await expect(seat.page.locator("tbody tr")).to_have_count(4)
        for each in (first, second, third, fourth, fifth):
            await world.send("POST", f"/api/v1/admin/dead-letters/{each['id']}/discard", {"reason": "a test"})

    async def _parked(self, world: World) -> Any:
        envelope = an_envelope(world)
        await park(world, "payments", "payments.capture.v1", {"order_id": 1}, envelope, dead_reason="Tests: still")
        return await the_letter(world, envelope.id)


class TestWithMoney:
    async def test_capture_after_seeing_the_amounts(self, seat: Seat, world: World) -> None:
        payment = await world.a_payment()
        await seat.open(f"/console/orders/{payment.order_id}")
        await seat.page.get_by_role("link", name="Capture…", exact=True).click()
        await seat.page.get_by_label("Amount in EUR").fill("40.00")
        await seat.press("Change the amount")
        await expect(seat.page.locator(".confirm")).to_contain_text("still held: 60.00")

        await seat.press(re.compile("Capture 40.00"))

        await seat.told("captured")
        assert (await payment.intent())["captured_amount"] == 4_000

    async def test_the_last_capture_releases_the_rest(self, seat: Seat, world: World) -> None:
        payment = await world.a_payment()
        await seat.open(f"/console/orders/{payment.order_id}/payments/{payment.id}/capture?amount=30")
        await seat.page.get_by_label("Release the rest").check()

        await seat.press(re.compile("Capture 30.00"))

        await seat.told("captured")
        intent = await payment.intent()
        assert (intent["captured_amount"], intent["voided_amount"]) == (3_000, 7_000)

    async def test_void(self, seat: Seat, world: World) -> None:
        payment = await world.a_payment()
        await seat.open(f"/console/orders/{payment.order_id}")
        await seat.page.get_by_role("link", name="Void…", exact=True).click()
        await expect(seat.page.locator(".confirm")).to_contain_text("100.00")

        await seat.press("Void")

        await seat.told("released")
        assert (await payment.intent())["status"] == "voided"

    async def test_refund(self, seat: Seat, world: World) -> None:
        payment = await world.a_captured_payment()
        await seat.open(f"/console/orders/{payment.order_id}/payments/{payment.id}/refund?amount=12.50")
        await seat.page.get_by_label("Reason").fill("one cup was broken")

        await seat.press(re.compile("Refund 12.50"))

        await seat.told("refunded")
        await expect(seat.page.locator(".payment")).to_contain_text("one cup was broken")

    async def test_more_than_there_is_cannot_be_confirmed(self, seat: Seat, shop: Shop) -> None:
        await seat.open(f"/console/orders/{shop.captured.order_id}/payments/{shop.captured.id}/refund?amount=45.01")

        await expect(seat.page.get_by_role("alert")).to_contain_text("at most 45.00")
        await expect(seat.page.get_by_role("button", name=re.compile("^Refund"))).to_have_count(0)

    async def test_what_is_refused_is_told(self, seat: Seat, world: World) -> None:
        payment = await world.a_payment("tok_capture_declined")
        await seat.open(f"/console/orders/{payment.order_id}/payments/{payment.id}/capture")

        await seat.press(re.compile("^Capture"))

        await expect(seat.page.locator("main > .flash.bad")).to_contain_text("declined")


class TestAttention:
    async def test_an_unknown_outcome_is_settled_by_evidence(self, seat: Seat, world: World, shop: Shop) -> None:
        await seat.open("/console/attention")
        case = seat.page.locator("article", has_text=shop.unknown)
        await case.get_by_text("I know what became of it").click()
        await case.get_by_label("It has").select_option("failed")
        await case.get_by_label("How that is known").fill("Not in the provider's dashboard, ticket 18")

        async def settled() -> bool:
            # The resolver may be at it this very moment.
            await seat.open("/console/attention")
            case = seat.page.locator("article", has_text=shop.unknown)
            await case.get_by_text("I know what became of it").click()
            await case.get_by_label("It has").select_option("failed")
            await case.get_by_label("How that is known").fill("Not in the provider's dashboard, ticket 18")
            await seat.press("Settle it", within=case)
            return "Settled" in await seat.page.locator("main > .flash").inner_text()

        await until(settled)
        await expect(seat.page.locator("article", has_text=shop.unknown)).to_have_count(0)

    async def test_a_label_nobody_knows_of_is_settled_by_evidence(self, seat: Seat, world: World) -> None:
        order_id = await a_shippable_order(world, city="Silent Harbour")
        asked = await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {}, headers={"Prefer": "respond-async"})
        assert asked.status == 202, asked
        await eventually(seat, "/console/attention", str(order_id))

        async def settled() -> bool:
            # The resolver may be at it this very moment.
            await seat.open("/console/attention")
            case = seat.page.locator("article", has_text=str(order_id))
            await case.get_by_text("I know that it was not bought").click()
            await case.get_by_label("How that is known").fill("Not in the carrier's list")
            await seat.press("Settle it", within=case)
            return "Settled" in await seat.page.locator("main > .flash").inner_text()

        await until(settled)
        await expect(seat.page.locator("article", has_text=str(order_id))).to_have_count(0)

    async def test_a_conflict_is_accepted_with_a_reason(self, seat: Seat, world: World) -> None:
        """F10."""
        payment = await world.a_captured_payment()
        world.sandbox.books.add(payment.at_the_provider(), "refund", 12_000, reason="dashboard")
        await eventually(seat, f"/console/orders/{payment.order_id}", "12000 given back of 10000 captured")
        await seat.look("order-conflict")
        await seat.page.get_by_role("link", name="what can be done", exact=True).click()
        case = seat.page.locator("article", has_text=str(payment.id))
        await case.get_by_text("The provider's facts are right").click()
        await case.get_by_label("Why").fill("Their support confirmed it, ticket 19")
        await seat.look("attention-conflict")

        await seat.press("Accept it", within=case)

        await seat.told("Accepted")
        await expect(case).to_have_count(0)
        assert (await payment.intent())["status"] == "refunded"
        await seat.open("/console/audit?text=payment.accept")
        await expect(seat.page.locator("main")).to_contain_text("ticket 19")

    async def test_money_that_no_order_owes_is_given_back(self, seat: Seat, world: World) -> None:
        """F9."""
        first = await world.a_payment()
        assert (await first.void()).status == 201
        there = first.at_the_provider()
        second = await world.authorize(first.order_id, await world.a_snapshot(first.order_id))
        assert second.status == 201
        world.sandbox.books.add(there, "capture", 4_000, reason="dashboard")
        await eventually(seat, "/console/attention", "40.00")
        case = seat.page.locator("article", has_text=str(first.id))
        await expect(case.get_by_role("heading")).to_contain_text("the order went on without this payment")
        await seat.look("attention-overpaid")

        await seat.press(re.compile("Give 40.00"), within=case)

        await seat.told("goes back")
        await expect(case).to_have_count(0)
        assert (await first.intent())["refunded_amount"] == 4_000


class TestWebhookEvents:
    async def test_one_is_inspected_and_processed_once_more(self, seat: Seat, shop: Shop) -> None:
        await seat.open("/console/events?status=processed")
        await seat.page.locator("tbody a").first.click()
        await expect(seat.page.locator("pre.json").first).to_contain_text("{")

        await seat.press("Process it once more")

        await seat.told("once more")
        await expect(seat.page.locator("ol.tried li")).not_to_have_count(1)

    async def test_those_of_a_time_are_processed_once_more(self, seat: Seat, shop: Shop) -> None:
        await seat.open("/console/events")
        await seat.page.get_by_label("Received from (UTC)").fill("2020-01-01T00:00")
        await seat.page.get_by_label("Before (UTC)").fill("2099-01-01T00:00")
        await seat.page.get_by_label("Of type").fill("payment.refund.succeeded")

        await seat.press("Process them once more")

        await seat.told(re.compile(r"[1-9]\d* events are being processed once more"))


class TestDeadLetters:
    async def test_one_is_understood_mended_and_ends_right(self, seat: Seat, world: World, shop: Shop) -> None:
        await seat.open("/console")
        await seat.live()
        await seat.page.get_by_role("link", name=re.compile("dead letters")).click()
        await seat.page.locator("tr", has_text="Expected `int | null`").get_by_role("link").click()
        await seat.page.get_by_role("link", name=shop.letter, exact=True).click()
        await expect(seat.page.locator(".flash.bad")).to_contain_text("Expected `int | null`, got `str` - at `$.amount`")
        await seat.page.get_by_role("link", name="Edit and retry…", exact=True).click()
        text = await seat.page.locator("textarea").input_value()
        await seat.page.locator("textarea").fill(text.replace('"10000"', "10000"))
        await seat.press("Show the difference")
        await expect(seat.page.locator("td.was")).to_have_text('"10000"')
        await expect(seat.page.locator("td.is")).to_have_text("10000")
        await seat.look("dead-letter-difference")
        await seat.page.get_by_label("Reason").fill("The shop sent the amount as a text")

        await seat.press("Send it in its place")

        await seat.told("in its place")
        await expect(seat.page.locator(".facts")).to_contain_text("replaced")
        await until(lambda: _captured(shop))
        await seat.open(f"/console/orders/{shop.held.order_id}")
        await expect(seat.page.locator(".payment .facts")).to_contain_text("100.00")

    async def test_one_of_fulfillment_ends_in_a_label(self, seat: Seat, world: World) -> None:
        order_id = await a_shippable_order(world)
        envelope = an_envelope(world)
        await send(world, "fulfillment.buy_label.v1", {"order_id": order_id, "insured_amount": "lots"}, envelope)

        await self._mend(seat, world, envelope, "insured_amount", '"lots"', "null")

        await eventually(seat, f"/console/shipments?order_id={order_id}", "sandbox")
        await expect(seat.page.locator("tbody")).to_contain_text("purchased")
        await eventually(seat, f"/console/orders/{order_id}", "label")

    async def test_one_of_webhooks_ends_in_an_event_that_is_processed(self, seat: Seat, world: World) -> None:
        payment = await world.a_payment()
        event = (await until(lambda: world.rows("SELECT id FROM webhooks.webhook_events WHERE order_id = $1", payment.order_id)))[0]
        envelope = an_envelope(world)
        await send(world, "webhooks.replay.v1", {"event_id": "the first one"}, envelope)

        await self._mend(seat, world, envelope, "event_id", '"the first one"', f'"{event["id"]}"')

        await seat.open(f"/console/events/{event['id']}")
        await expect(seat.page.locator("ol.tried")).to_contain_text("admin:tests")
        await expect(seat.page.locator(".facts")).to_contain_text("processed")

    async def test_one_of_the_reconciler_ends_in_a_run(self, seat: Seat, world: World) -> None:
        envelope = an_envelope(world)
        times = {"since": "2026-02-01T00:00:00Z", "until": "2026-02-02T00:00:00Z"}
        await send(world, "reconciler.start_run.v1", {"domain": "paymnts", "provider": "sandbox", **times}, envelope)

        await self._mend(seat, world, envelope, "domain", '"paymnts"', '"payments"')

        await eventually(seat, "/console/reconciliation?status=all", "2026-02-01 00:00:00 UTC to 2026-02-02 00:00:00 UTC")

    async def _mend(self, seat: Seat, world: World, envelope: Envelope, field: str, wrong: str, right: str) -> None:
        """Find it from the first page on, understand it by what the page says alone, mend it, and send it in its place."""
        letter = await the_letter(world, envelope.id)
        await seat.open("/console/dead-letters")
        await seat.page.locator("tr", has_text=letter["message_type"]).filter(has_text=f"$.{field}").get_by_role("link").click()
        await seat.page.get_by_role("link", name=letter["id"], exact=True).click()
        await expect(seat.page.locator(".flash.bad")).to_contain_text(f"at `$.{field}")
        await seat.page.get_by_role("link", name="Edit and retry…", exact=True).click()
        text = await seat.page.locator("textarea").input_value()
        assert wrong in text
        await seat.page.locator("textarea").fill(text.replace(wrong, right))
        await seat.press("Show the difference")
        await seat.page.get_by_label("Reason").fill("Mended by what the page said")
        await seat.press("Send it in its place")
        await seat.told("in its place")

    async def test_what_is_no_json_is_told_and_kept(self, seat: Seat, world: World) -> None:
        envelope = an_envelope(world)
        await park(world, "payments", "payments.capture.v1", {"order_id": 1}, envelope)
        letter = await the_letter(world, envelope.id)
        await seat.open(f"/console/dead-letters/{letter['id']}/edit")
        await seat.page.locator("textarea").fill("{ half")
        seat.expects(422)

        await seat.press("Show the difference")

        await expect(seat.page.get_by_role("alert")).to_contain_text("no JSON")
        await expect(seat.page.locator("textarea")).to_have_value("{ half")

    async def test_one_is_discarded_with_a_reason(self, seat: Seat, world: World) -> None:
        envelope = an_envelope(world)
        await park(world, "payments", "payments.capture.v1", {"order_id": 2}, envelope)
        letter = await the_letter(world, envelope.id)
        await seat.open(f"/console/dead-letters/{letter['id']}")
        await seat.page.locator("form", has_text="Nobody needs it").get_by_label("Reason").fill("A test")

        await seat.press("Discard")

        await seat.told("put away")
        await expect(seat.page.locator(".facts")).to_contain_text("A test")

    async def test_one_is_retried(self, seat: Seat, world: World) -> None:
        envelope = an_envelope(world)
        await park(world, "payments", "payments.capture.v1", {"order_id": 3}, envelope)
        letter = await the_letter(world, envelope.id)
        await seat.open(f"/console/dead-letters/{letter['id']}")

        await seat.press("Retry")

        await seat.told("on its way")
        # It cannot be read this time either, and comes to lie here again.
        await until(lambda: _died_twice(world, letter["id"]))

    async def test_many_are_chosen_counted_and_retried_with_progress(self, seat: Seat, world: World) -> None:
        envelopes = [an_envelope(world) for _ in range(3)]
        for envelope in envelopes:
            await park(world, "fulfillment", "fulfillment.put_rule.v1", {"nonsense": 1}, envelope, dead_reason="Tests: many")
        planted = [await the_letter(world, envelope.id) for envelope in envelopes]
        await seat.open("/console/dead-letters/list?text=many")
        for letter in planted[:2]:
            await seat.page.get_by_label(f"Choose {letter['id']}").check()
        await seat.page.locator("fieldset", has_text="Those chosen").get_by_label("Only count them").check()

        await seat.press("Do it with those chosen")

        await seat.told("2 letters are meant; nothing was sent")
        assert len(await letters(world, text="many", status="waiting")) == 3

        await seat.open("/console/dead-letters/list?text=many")
        every = seat.page.locator("fieldset", has_text="All that fit")
        await every.get_by_label("Only count them").uncheck()
        await every.get_by_label("Letters per second").fill("50")
        await seat.press("Do it with all that fit")
        await seat.told("begun")
        await expect(seat.page.locator("#live > p .state")).to_have_text("completed")
        await expect(seat.page.locator("main")).to_contain_text("3 of 3")
        await seat.look("redrive")

    async def test_what_is_refused_of_many_is_told_where_they_are_listed(self, seat: Seat, world: World) -> None:
        envelope = an_envelope(world)
        await park(world, "fulfillment", "fulfillment.put_rule.v1", {"nonsense": 1}, envelope, dead_reason="Tests: unreasoned")
        letter = await the_letter(world, envelope.id)
        await seat.open("/console/dead-letters/list?text=unreasoned")
        every = seat.page.locator("fieldset", has_text="All that fit")
        await every.get_by_label("Do").select_option("discard")
        await every.get_by_label("Only count them").uncheck()

        await seat.press("Do it with all that fit")

        await expect(seat.page.locator("main > .flash.bad")).to_contain_text("Say why they are put away")
        await expect(seat.page.get_by_role("link", name=letter["id"], exact=True)).to_be_visible()

    async def test_a_retry_of_many_can_be_stopped(self, seat: Seat, world: World) -> None:
        envelopes = [an_envelope(world) for _ in range(5)]
        for envelope in envelopes:
            await park(world, "fulfillment", "fulfillment.put_nexus.v1", {"nonsense": 1}, envelope, dead_reason="Tests: stoppable")
        for envelope in envelopes:
            await the_letter(world, envelope.id)
        await seat.open("/console/dead-letters/list?text=stoppable")
        every = seat.page.locator("fieldset", has_text="All that fit")
        await every.get_by_label("Only count them").uncheck()
        await every.get_by_label("Letters per second").fill("0.1")
        await seat.press("Do it with all that fit")

        await seat.press("Stop")

        await seat.told("stopped")
        await expect(seat.page.locator("#live > p .state")).to_have_text("stopped")


class TestReconciliation:
    async def test_a_difference_is_settled(self, seat: Seat, shop: Shop) -> None:
        await seat.open("/console/reconciliation")
        case = seat.page.locator("article").first
        await case.get_by_text("Settle it").first.click()
        await case.get_by_label("Decision").select_option("accepted")
        await case.get_by_label("Why").fill("A cent, ticket 17")

        await seat.press("Settle it", within=case)

        await seat.told("settled")
        await seat.open("/console/reconciliation?status=resolved")
        await expect(seat.page.locator("article").first).to_contain_text("A cent, ticket 17")

    async def test_a_run_is_begun(self, seat: Seat) -> None:
        await seat.open("/console/reconciliation")
        await seat.page.get_by_label("From").fill("2026-01-01")
        await seat.page.get_by_label("Before").fill("2026-01-02")

        await seat.press("Start")

        await seat.told("begun")
        await expect(seat.page.locator("#live table")).to_contain_text("2026-01-01 00:00:00 UTC to 2026-01-02 00:00:00 UTC")


class TestTax:
    async def test_a_period_is_downloaded(self, seat: Seat) -> None:
        await seat.open("/console/tax")

        async with seat.page.expect_download() as downloading:
            await seat.page.get_by_role("button", name="Download CSV", exact=True).click()

        file = await (await downloading.value).path()
        assert file.read_text().startswith("document_id,")
        await eventually(seat, "/console/tax", "itemized")


class TestKeys:
    async def test_an_address_is_added_disabled_and_deleted(self, admin: Seat) -> None:
        seat = admin
        await seat.open("/console/keys")
        await seat.page.get_by_label("Address").last.fill("https://shop.example/tender")
        await seat.press("Add")
        await seat.told("will be told")
        row = seat.page.locator("tr", has_text="https://shop.example/tender")
        await seat.press("Disable", within=row)
        await seat.told("no more")
        await expect(row).to_contain_text("disabled")
        await seat.press("Enable", within=row)
        await seat.told("again")
        await seat.press("New secret", within=row)
        await seat.told("two signatures")
        recovery = seat.page.locator("details", has_text="https://shop.example/tender")
        await recovery.get_by_text("https://shop.example/tender").click()
        await recovery.get_by_label("Since").fill("2099-01-31T12:00")
        await seat.press("Deliver", within=recovery)
        await seat.told("events are being delivered")
        await seat.press("Delete", within=row)
        await seat.told("forgotten")
        await expect(row).to_have_count(0)

    async def test_what_was_not_delivered_is_delivered_again(self, seat: Seat, world: World) -> None:
        answer = await world.send("POST", "/api/v1/admin/webhook-endpoints", {"url": "https://nobody.invalid/tender"})
        assert answer.status == 200, answer
        await world.a_payment()
        await eventually(seat, "/console/keys?deliveries=pending", "payment.authorized")

        await seat.press("Deliver again", within=seat.page.locator("tr", has_text="payment.authorized").first)

        await seat.told("delivered again")
        await world.send("DELETE", f"/api/v1/admin/webhook-endpoints/{answer.json['id']}")

    async def test_one_is_revoked_and_it_is_written_down(self, admin: Seat, world: World) -> None:
        seat, key_id = admin, (await a_key(world.place, world.store_id, Role.CHECKOUT)).split("_")[2]
        await seat.open("/console/keys")
        await seat.look("keys-of-an-admin")

        await seat.press(re.compile(f"Revoke tests .*{key_id[-12:]}"))

        await seat.told("opens nothing any more")
        await seat.open("/console/audit?text=api_key.revoke")
        await expect(seat.page.locator("tbody tr").first).to_contain_text(key_id[-12:])

    async def test_a_credential_is_given_tried_and_retired(self, admin: Seat) -> None:
        seat = admin
        await seat.open("/console/keys")
        await seat.page.get_by_text("sandbox for payments").click()
        form = seat.page.locator("details", has_text="sandbox for payments")
        await form.get_by_label("api key").fill("sandbox-key-of-nobody")
        await seat.press("Seal and keep it", within=form)
        await seat.told("sealed")
        row = seat.page.locator("tr", has_text="payments").filter(has_text="active")
        assert "sandbox-key-of-nobody" not in await seat.page.content()
        await seat.press("Try the newest", within=row)
        await expect(seat.page.locator("main > .flash.bad")).to_contain_text("rejected")
        await seat.press(re.compile("Retire version"), within=row)
        await seat.told("used no more")


class TestByKeyboardAndWithoutScript:
    async def test_the_first_key_leads_past_the_menu(self, seat: Seat) -> None:
        await seat.open("/console/orders")
        await seat.page.keyboard.press("Tab")
        await expect(seat.page.get_by_role("link", name="Skip to the content", exact=True)).to_be_focused()
        await seat.page.keyboard.press("Enter")
        await seat.page.keyboard.press("Tab")
        await expect(seat.page.get_by_role("searchbox", name="Id", exact=True)).to_be_focused()

    async def test_everything_is_read_and_filtered_without_script(self, browser: Browser, world: World, shop: Shop) -> None:
        async with Seat.taken(browser, world, screenshots=SCREENSHOTS, script=False) as seat:
            await seat.open("/console/orders")
            await seat.page.get_by_role("searchbox", name="Id", exact=True).fill(str(shop.captured.order_id))
            await seat.press("Show")
            await expect(seat.page.locator("tbody tr")).to_have_count(1)
            await seat.page.get_by_role("link", name=str(shop.captured.order_id), exact=True).click()
            await expect(seat.page.locator(".timeline")).to_contain_text("refund succeeded")


async def _captured(shop: Shop) -> bool:
    return bool((await shop.held.intent())["captured_amount"] == 10_000)


async def _died_twice(world: World, letter_id: str) -> bool:
    answer = await world.send("GET", f"/api/v1/admin/dead-letters/{letter_id}")
    return bool(answer.json["letter"]["deaths"] == 2)
