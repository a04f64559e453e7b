"""Who may do what: keys, roles, tokens, stores and environments."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import UUID

import pytest

from services.gateway.domain import Role
from services.gateway.handlers.idempotency import CHEST, LOCKED
from shared.ids import new_id
from shared.messages import Environment
from shared.vault import Chest
from tests.leaks import kept_in
from tests.proxy import a_proxy
from tests.world import ORDER, TOKEN_SECRET, Place, World, a_key, a_world, http_client, secret_of, until


class TestKeys:
    @pytest.mark.parametrize("token", ["nonsense", "tender_sandbox_" + "0" * 32 + "_x", "tok_e30.AAAA"])
    async def test_an_invalid_key_is_refused_without_saying_why(self, world: World, token: str) -> None:
        answer = await world.put_order(new_id(), ORDER, token=token)

        assert (answer.status, answer.code) == (401, "unauthenticated")
        assert answer.headers["WWW-Authenticate"] == "Bearer"

    async def test_a_missing_key_is_refused_before_the_body_is_read(self, world: World) -> None:
        answer = await world.send("PUT", f"/api/v1/admin/orders/{new_id()}", content=b"{", headers={"Authorization": ""})

        assert answer.status == 401

    async def test_a_checkout_key_cannot_do_an_admins_work(self, world: World) -> None:
        payment = await world.a_payment()

        answer = await payment.capture(role=Role.CHECKOUT)

        assert (answer.status, answer.code) == (403, "forbidden")

    async def test_another_store_does_not_see_the_order(self, world: World, place: Place) -> None:
        order_id = await world.an_order()
        other = await a_key(place, new_id(), Role.ADMIN)

        answer = await world.send("GET", f"/api/v1/admin/orders/{order_id}", token=other)

        assert answer.status == 404

    async def test_another_store_may_use_the_same_order_id(self, world: World, place: Place) -> None:
        order_id = await world.an_order()
        other = await a_key(place, new_id(), Role.ADMIN)

        answer = await world.put_order(order_id, ORDER, token=other)

        assert (answer.status, answer.json["version"]) == (200, 1)

    async def test_a_production_key_reaches_neither_sandbox_rows_nor_the_sandbox_provider(self, world: World, place: Place) -> None:
        order_id = await world.an_order()
        production = await a_key(place, world.store_id, Role.ADMIN, Environment.PRODUCTION)

        seen = await world.send("GET", f"/api/v1/admin/orders/{order_id}", token=production)
        await world.put_order(order_id, ORDER, token=production)
        quoted = await world.quote(order_id, token=production)

        assert seen.status == 404
        assert (quoted.status, quoted.code) == (422, "provider-not-configured")

    async def test_key_with_the_other_environments_name_is_refused(self, world: World) -> None:
        """L6: what a key says of itself is true, or it opens nothing."""
        key = world.keys[Role.ADMIN].replace("_sandbox_", "_production_")

        assert (await world.put_order(new_id(), ORDER, token=key)).status == 401

    async def test_a_keys_secret_is_nowhere_in_the_database(self, world: World) -> None:
        """A key kept in the clear is shown as hex, where its text is not found."""
        made = await world.rows("SELECT id FROM gateway.api_keys")

        assert made
        assert await kept_in(world.place, secret_of(world.keys[Role.ADMIN])) == []


class TestCheckoutToken:
    async def test_pays_its_order_and_no_other(self, world: World) -> None:
        order_id, other = await world.an_order(), await world.an_order()
        made = await world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")
        token = made.json["token"]

        quoted = await world.quote(order_id, token=token)
        paid = await world.authorize(order_id, quoted.json["snapshot_id"], token=token)
        refused = await world.quote(other, token=token)
        also_refused = await world.authorize(other, await world.a_snapshot(other), token=token)

        assert (made.status, quoted.status, paid.status) == (201, 201, 201)
        assert (refused.status, also_refused.status) == (403, 403)

    async def test_cannot_capture(self, world: World) -> None:
        payment = await world.a_payment()
        token = (await world.send("POST", f"/api/v1/admin/orders/{payment.order_id}/checkout-token")).json["token"]

        answer = await payment.capture(token=token)

        assert answer.status == 403

    async def test_is_the_same_again_and_not_stored(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        path = f"/api/v1/admin/orders/{order_id}/checkout-token"
        first = await world.send("POST", path, key=key)

        again = await world.send("POST", path, key=key)

        assert again.content == first.content
        [row] = await world.rows("SELECT operation_id, response_body FROM gateway.idempotency_keys WHERE idempotency_key = $1", key)
        # Locked, and even whoever can open it finds no signature.
        kept = Chest(TOKEN_SECRET, purpose=CHEST).unlock(row["response_body"].removeprefix(LOCKED), about=row["operation_id"].bytes)
        assert first.json["token"].rpartition(".")[0] in kept.decode()
        assert first.json["token"] not in kept.decode()

    async def test_of_an_order_that_is_not_there_is_refused(self, world: World) -> None:
        answer = await world.send("POST", f"/api/v1/admin/orders/{new_id()}/checkout-token")

        assert answer.status == 404

    async def test_altered_is_refused(self, world: World) -> None:
        order_id = await world.an_order()
        token = (await world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")).json["token"]

        answer = await world.quote(order_id, token=token[:-2] + ("AA" if not token.endswith("AA") else "BB"))

        assert answer.status == 401

    async def test_expires(self, own_place: Place) -> None:
        async with a_world(own_place, gateway={"checkout_token_lifetime_seconds": 0}) as world:
            order_id = await world.an_order()
            token = (await world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")).json["token"]

            answer = await world.quote(order_id, token=token)

        assert answer.status == 401


class TestCustomers:
    async def test_reads_own_orders_newest_first_and_in_pages(self, world: World) -> None:
        customer_id = new_id()
        orders = [await world.an_order(customer_id=customer_id) for _ in range(3)]
        token = await _customer_token(world, customer_id)

        first = await world.send("GET", "/api/v1/me/orders?limit=2", token=token)
        second = await world.send("GET", f"/api/v1/me/orders?limit=2&before={first.json['next']}", token=token)

        assert [o["id"] for o in first.json["orders"] + second.json["orders"]] == [str(o) for o in reversed(orders)]
        assert second.json["next"] is None

    async def test_does_not_read_others(self, world: World) -> None:
        own, others = new_id(), await world.an_order(customer_id=new_id())
        token = await _customer_token(world, own)

        answer = await world.send("GET", f"/api/v1/me/orders/{others}", token=token)

        assert answer.status == 404

    async def test_changes_nothing(self, world: World) -> None:
        order_id = await world.an_order()
        token = await _customer_token(world, new_id())

        answer = await world.quote(order_id, token=token)

        assert answer.status == 403

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("/me/checkout/quote", "/checkout/quote"),
            ("/me/orders/{id}/pay", "/checkout/orders/{id}/submit-payment"),
            ("/me/orders/{id}/payments/authorize", "/checkout/orders/{id}/payments/authorize"),
            ("/me/orders/{id}/shipping/rates", "/checkout/orders/{id}/shipping/rates"),
            ("/me/orders/{id}/shipping/tracking", "/checkout/orders/{id}/shipping/tracking"),
            ("/me/orders/{id}/tax/finalize", "/checkout/orders/{id}/tax/finalize"),
        ],
    )
    async def test_old_routes_say_where_they_went(self, world: World, old: str, new: str) -> None:
        """F16, C57: Deprecation is a structured field's date (RFC 9745), Sunset an HTTP date (RFC 8594); 308 keeps method and body."""
        order_id, method = str(new_id()), "GET" if old.endswith("tracking") else "POST"
        query = "?limit=2&q=a%20b%2F&q=%C3%A9"

        plain, asking = [await world.send(method, "/api/v1" + old.replace("{id}", order_id) + more) for more in ("", query)]

        there = "/api/v1" + new.replace("{id}", order_id)
        assert (plain.status, plain.headers["Location"], asking.headers["Location"]) == (308, there, there + query)
        assert plain.content == b""
        deprecated = datetime.fromtimestamp(int(plain.headers["Deprecation"].removeprefix("@")), UTC)
        assert deprecated < parsedate_to_datetime(plain.headers["Sunset"])
        document = (await world.http.get("/openapi/openapi.json")).json()
        assert document["paths"]["/api/v1" + old.replace("{id}", "{order_id}")][method.lower()]["deprecated"]

    async def test_following_an_old_route_reaches_the_new_one(self, world: World) -> None:
        order_id = await world.an_order()
        body, keyed = {"payment_method": "tok_success"}, {"Idempotency-Key": new_id().hex}
        bearer = {"Authorization": f"Bearer {world.keys[Role.CHECKOUT]}"}

        answer = await world.http.post(f"/api/v1/me/orders/{order_id}/pay", json=body, headers={**bearer, **keyed}, follow_redirects=True)

        assert (answer.status_code, answer.json()["result"]) == (201, "captured")


async def _customer_token(world: World, customer_id: UUID) -> str:
    answer = await world.send("POST", f"/api/v1/admin/customers/{customer_id}/token")
    assert answer.status == 201, answer
    return str(answer.json["token"])


class TestLimits:
    async def test_a_key_over_its_rate_waits(self, own_place: Place) -> None:
        async with a_world(own_place, gateway={"rate_per_second": 0.5, "rate_burst": 2}) as world:
            answers = [await world.send("GET", f"/api/v1/admin/orders/{new_id()}") for _ in range(3)]

        assert [a.status for a in answers] == [404, 404, 429]
        assert answers[2].code == "rate-limited"
        assert answers[2].headers["Retry-After"] == "1"

    async def test_console_and_api_share_a_keys_rate(self, own_place: Place) -> None:
        """For pages of the console that cost nothing: a signed-in browser could ask every service without end."""
        rates = {"rate_per_second": 0.001, "rate_burst": 5}
        async with a_world(own_place, gateway=rates) as world, http_client(world.gateway_url, timeout_seconds=30) as http:
            await http.post("/console/sign-in", data={"access_key": world.keys[Role.OPERATOR]})
            # Signing in was the first of five.
            pages = [await http.get("/console/orders") for _ in range(3)]
            called = [await world.send("GET", f"/api/v1/admin/orders/{new_id()}", role=Role.OPERATOR) for _ in range(2)]
            over = await http.get("/console/orders")
            form = await http.post("/console/sign-out")

        assert [page.status_code for page in pages] == [200] * 3
        assert [answer.status for answer in called] == [404, 429]
        assert (over.status_code, "Retry-After" in over.headers) == (429, True)
        assert form.status_code == 429

    async def test_a_token_has_a_rate_of_its_own(self, own_place: Place) -> None:
        async with a_world(own_place, gateway={"token_rate_per_second": 0.01, "token_rate_burst": 2}) as world:
            order_id = await world.an_order()
            token = (await world.send("POST", f"/api/v1/admin/orders/{order_id}/checkout-token")).json["token"]
            answers = [await world.quote(order_id, token=token) for _ in range(3)]
            beside = await world.send("GET", f"/api/v1/admin/orders/{order_id}")

        assert [answer.status for answer in answers] == [201, 201, 429]
        assert answers[2].code == "rate-limited"
        assert beside.status == 200

    async def test_overload_is_shed_before_a_key_is_claimed(self, own_place: Place) -> None:
        async with a_world(own_place, gateway={"requests_in_flight_max": 0}) as world:
            answer = await world.put_order(new_id(), ORDER)
            rows = await world.rows("SELECT FROM gateway.idempotency_keys WHERE store_id = $1", world.store_id)

        assert (answer.status, answer.code, answer.json["retry"]) == (503, "overloaded", "same_key")
        assert rows == []

    async def test_without_a_way_to_publish_no_key_is_claimed(self, own_place: Place) -> None:
        async with a_proxy(own_place.amqp_of("gateway")) as proxy, a_world(own_place, gateway={"amqp_url": proxy.url}) as world:
            await proxy.disconnect(b"gateway publish")
            ready = await until(lambda: _not_ready(world))
            refused = await world.put_order(new_id(), ORDER, key="once")
            rows = await world.rows("SELECT FROM gateway.idempotency_keys WHERE store_id = $1", world.store_id)
            proxy.allow_all()
            again = await world.put_order(new_id(), ORDER, key="once")

        assert (refused.status, refused.code, refused.json["retry"]) == (503, "overloaded", "same_key")
        assert refused.headers["Retry-After"] == "1"
        assert rows == []
        assert [name for name, state in ready["checks"].items() if state != "ok"] == ["broker"]
        assert again.status == 200


async def _not_ready(world: World) -> Any:
    answer = await world.http.get(f"{world.monitoring['gateway']}/health/ready")
    return answer.json() if answer.status_code == 503 else None


class TestBrowsers:
    async def test_of_an_allowed_origin_may_call(self, own_place: Place) -> None:
        async with a_world(own_place, gateway={"cors_origins": "https://shop.example"}) as world:
            asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "Idempotency-Key"}
            allowed = await world.http.options("/api/v1/checkout/quote", headers={"Origin": "https://shop.example", **asked})
            refused = await world.http.options("/api/v1/checkout/quote", headers={"Origin": "https://other.example", **asked})

        assert allowed.headers["access-control-allow-origin"] == "https://shop.example"
        assert "idempotency-key" in allowed.headers["access-control-allow-headers"].lower()
        assert "access-control-allow-origin" not in refused.headers
