"""The worker, inbox, retry tiers and dead letters, seen through messages."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import aio_pika
import asyncpg
import httpx
import msgspec
import pytest
from prometheus_client import REGISTRY

from shared import topology
from shared.bus import Consumer, Letter, Received, Unroutable
from shared.ids import new_id
from shared.messages import Envelope, Environment, decode_reply, encode, type_of
from shared.migrations import role_of
from shared.replies import Replies
from shared.worker import SLOTS
from tests.shared.probe import NAME, Ask, Probe, a_probe, take, waiting
from tests.world import Place, management, until


@pytest.fixture
async def probe(bare_place: Place, tmp_path: Path) -> AsyncIterator[Probe]:
    async with a_probe(bare_place, tmp_path) as made:
        yield made


class TestCommand:
    async def test_is_done_once_however_often_it_comes(self, probe: Probe) -> None:
        envelope = await probe.send()
        await asyncio.gather(*(probe.send(envelope=envelope) for _ in range(20)))

        await until(lambda: _is(probe, envelope, "done"))
        await until(lambda: _idle(probe))

        assert await probe.done(envelope) == 1

    async def test_is_answered_again_with_the_kept_reply(self, probe: Probe) -> None:
        envelope = await probe.send()
        await until(lambda: _is(probe, envelope, "done"))
        async with Replies(probe.place.amqp_url, probe.publisher, name=NAME) as replies:
            await until(lambda: _quiet(replies))
            future = replies.expect(envelope.id)

            await replies.send(envelope, "probe.do.v1", b'{"type":"probe.do.v1","how":"well"}')

            reply = await replies.wait(future, timeout_seconds=5)
        assert probe.counted.tries == 1
        assert reply == decode_reply(b'{"kind":"done","body":{"tries":1}}')

    async def test_with_the_same_id_and_other_content_is_refused(self, probe: Probe) -> None:
        envelope = await probe.send()
        await until(lambda: _is(probe, envelope, "done"))

        await probe.send("otherwise", envelope=envelope)

        dead = await until(probe.dead)
        assert "DifferentContent" in dead.headers["dead_reason"]
        assert await probe.done(envelope) == 1

    async def test_refused_is_remembered(self, probe: Probe) -> None:
        envelope = await probe.send("refused")
        await until(lambda: _is(probe, envelope, "done"))

        await probe.send("refused", envelope=envelope)
        await until(lambda: _idle(probe))

        assert probe.counted.tries == 1

    async def test_refused_for_now_is_not_remembered(self, probe: Probe) -> None:
        envelope = await probe.send("not now")
        await until(lambda: _tried(probe, 1))

        assert await probe.state(envelope) is None


class TestFailure:
    async def test_of_the_world_is_tried_again(self, probe: Probe) -> None:
        envelope = await probe.send("silent once")

        await until(lambda: _is(probe, envelope, "done"))

        assert probe.counted.tries == 2

    async def test_of_ours_passes_the_tiers_and_is_parked_with_its_reason(self, probe: Probe) -> None:
        envelope = await probe.send("bug")

        dead = await until(probe.dead)

        assert probe.counted.tries == 3
        assert dead.headers["dead_reason"] == "ZeroDivisionError: a bug of the probe"
        assert dead.headers["dead_attempts"] == 3
        assert "raise ZeroDivisionError" in dead.headers["dead_traceback"]
        assert not [key for key in dead.headers if key.startswith("x-death")]
        assert await probe.state(envelope) == "parked"

    async def test_of_ours_does_not_hold_others_up(self, probe: Probe) -> None:
        await probe.send("bug")
        envelope = await probe.send()

        await until(lambda: _is(probe, envelope, "done"))

    async def test_parked_is_not_resurrected_by_another_copy(self, probe: Probe) -> None:
        envelope = await probe.send("bug")
        await until(probe.dead)

        await probe.send("bug", envelope=envelope)
        await until(lambda: _idle(probe))

        assert probe.counted.tries == 3

    @pytest.mark.parametrize(
        ("what", "body", "kind"),
        [
            ("truncated", b'{"type":"probe.do.v1"', "probe.do.v1"),
            ("no JSON", b"\xff\x00", "probe.do.v1"),
            ("a type nobody knows", b"{}", "probe.undo.v9"),
            ("a field of the wrong kind", b'{"type":"probe.do.v1","how":7}', "probe.do.v1"),
        ],
    )
    async def test_poison_is_parked_at_once(self, probe: Probe, what: str, body: bytes, kind: str) -> None:
        await probe.send_raw(body, kind=kind)

        dead = await until(probe.dead)

        assert dead.headers["dead_reason"].startswith("Poison")
        assert (dead.body, probe.counted.tries) == (body, 0)

    @pytest.mark.parametrize(
        ("facts", "reason"),
        [
            ({"kind": "probe.do.v1", "routing_key": "probe.told.v1"}, "it was sent as probe.told.v1 and says that it is probe.do.v1"),
            ({"reply_to": "gateway.reply.x"}, "its reply would go to gateway, which sends no probe.do.v1"),
            ({"reply_to": "probe.in.v1"}, "its reply would go to probe.in.v1, which sends no probe.do.v1"),
        ],
        ids=["type", "reply to another", "reply to no reply queue"],
    )
    async def test_what_the_sender_may_not_send_is_parked(self, probe: Probe, facts: dict[str, Any], reason: str) -> None:
        """The broker checks the routing key alone, so the type and the reply's destination are checked here."""
        envelope = await probe.send_raw(b'{"type":"probe.do.v1"}', **facts)

        dead = await until(probe.dead)

        assert dead.headers["dead_reason"] == f"Poison: {reason}"
        assert (dead.type, dead.reply_to) == (facts.get("routing_key", "probe.do.v1"), None)
        assert (probe.counted.tries, await probe.done(envelope)) == (0, 0)

    async def test_a_message_without_its_envelope_is_parked(self, probe: Probe) -> None:
        await probe.send_raw(b"{}", headers={"id": "nonsense"})

        dead = await until(probe.dead)

        assert dead.headers["dead_reason"]

    async def test_that_cannot_even_be_sent_on_ends_in_the_brokers_own_net(self, probe: Probe) -> None:
        connection = await aio_pika.connect(probe.place.amqp_url)
        async with connection:
            await (await connection.channel()).exchange_delete(topology.retry_exchange(NAME, "1s"))

        envelope = await probe.send("bug")

        dead = await until(probe.dead)
        assert dead.headers["id"] == str(envelope.id)

    async def test_that_cannot_be_read_and_cannot_be_parked_holds_nobody_up(self, bare_place: Place, tmp_path: Path) -> None:
        async with a_probe(bare_place, tmp_path, prefetch=1) as probe:
            connection = await aio_pika.connect(probe.place.amqp_url)
            async with connection:
                await (await connection.channel()).exchange_delete(topology.DEAD)
            await probe.send_raw(b"{}", headers={"id": "nonsense"})

            envelope = await probe.send()

            await until(lambda: _is(probe, envelope, "done"))


class TestStores:
    async def test_slow_messages_of_one_leave_slots_to_others(self, probe: Probe) -> None:
        """Security report H1: a store's commands wait for a silent provider, more of them than are handled at the same time."""
        slow = [_command_of(store_id) for store_id in [new_id()] * 2 * SLOTS]
        await asyncio.gather(*(probe.send("slow", envelope=envelope) for envelope in slow))
        await until(lambda: _handling(probe, SLOTS))

        others = [await probe.send() for _ in range(3)]

        await until(lambda: _all_are_done(probe, others))
        assert probe.counted.handling == SLOTS
        probe.counted.gate.set()
        await until(lambda: _is(probe, slow[-1], "done"))


class TestQuery:
    async def test_is_answered(self, probe: Probe) -> None:
        envelope = await probe.send()
        await until(lambda: _is(probe, envelope, "done"))
        async with Replies(probe.place.amqp_url, probe.publisher, name=NAME) as replies:
            await until(lambda: _quiet(replies))

            reply = await replies.ask(msgspec.structs.replace(envelope, id=new_id()), Ask(), timeout_seconds=5)

        assert reply == decode_reply(b'{"kind":"done","body":{"tries":1}}')
        assert envelope.environment is Environment.SANDBOX

    @pytest.mark.parametrize(("late_seconds", "result"), [(20, "done"), (40, "too late")])
    async def test_is_dropped_past_its_deadline_and_grace(self, probe: Probe, late_seconds: int, result: str) -> None:
        """Clocks may differ by thirty seconds; what nothing can wait for any more costs no work."""
        labels = {"service": NAME, "type": type_of(Ask), "result": result}
        before = _handled(labels)
        late = Envelope(
            id=new_id(),
            store_id=new_id(),
            environment=Environment.SANDBOX,
            source="tests",
            actor="tests",
            correlation_id="probe",
            deadline=datetime.now(UTC) - timedelta(seconds=late_seconds),
        )

        await probe.send_raw(encode(Ask()), kind=type_of(Ask), envelope=late)

        async def handled() -> bool:
            return _handled(labels) > before

        await until(handled)


def _handled(labels: dict[str, str]) -> float:
    return REGISTRY.get_sample_value("tender_message_seconds_count", labels) or 0.0


class TestOutbox:
    async def test_an_event_goes_out_after_the_commit_and_its_row_goes(self, probe: Probe) -> None:
        await probe.send()

        event = await until(lambda: take(probe.place, topology.UNROUTED_QUEUE))

        assert event.type == "probe.happened.v1"
        await until(lambda: _empty(probe))

    async def test_what_a_crash_left_behind_is_swept(self, probe: Probe) -> None:
        await probe.rows(
            "INSERT INTO outbox (id, routing_key, headers, body, available_at) VALUES ($1, 'probe.happened.v1', '{}', '{}', now())",
            new_id(),
        )

        event = await until(lambda: take(probe.place, topology.UNROUTED_QUEUE))

        assert event.body == b"{}"
        await until(lambda: _empty(probe))

    async def test_what_has_a_head_start_is_not_swept_before(self, probe: Probe) -> None:
        """An event that its writer is about to publish is not sent a second time by the sweeper."""
        past, before = new_id(), new_id()
        await probe.rows(
            """
            INSERT INTO outbox (id, routing_key, headers, body, available_at)
            VALUES ($1, 'probe.happened.v1', '{}', '{}', now() - interval '1 second'),
                   ($2, 'probe.happened.v1', '{}', '{}', now() + interval '1 minute')
            """,
            past,
            before,
        )

        async def swept() -> bool:
            return not await probe.rows("SELECT FROM outbox WHERE id = $1", past)

        await until(swept)
        assert len(await probe.rows("DELETE FROM outbox WHERE id = $1 RETURNING id", before)) == 1
        assert (await take(probe.place, topology.UNROUTED_QUEUE)).type == "probe.happened.v1"


class TestStopping:
    async def test_finishes_what_is_in_hand(self, bare_place: Place, tmp_path: Path) -> None:
        async with a_probe(bare_place, tmp_path) as probe:
            envelope = await probe.send("slow")
            await until(lambda: _tried(probe, 1))
            asyncio.get_running_loop().call_later(0.3, probe.counted.gate.set)

        assert await probe.done(envelope) == 1

    async def test_gives_back_what_takes_too_long(self, bare_place: Place, tmp_path: Path) -> None:
        async with a_probe(bare_place, tmp_path, shutdown_grace_seconds=0.1) as probe:
            envelope = await probe.send("slow")
            await until(lambda: _tried(probe, 1))

        async with a_probe(bare_place, tmp_path) as probe:
            probe.counted.gate.set()
            await until(lambda: _is(probe, envelope, "done"))


class TestBroker:
    async def test_a_connection_closed_by_an_administrator_comes_back(self, probe: Probe) -> None:
        if probe.place.management_url is None:
            pytest.skip("needs the broker's management API")
        async with management(probe.place.management_url) as http:
            closed = await until(lambda: _close_all(http, probe.place.vhost))

        envelope = await probe.send()

        assert closed
        await until(lambda: _is(probe, envelope, "done"))

    async def test_a_message_nobody_is_bound_for_is_an_error_not_a_success(self, probe: Probe) -> None:
        with pytest.raises(Unroutable):
            await probe.publisher.publish(Letter(exchange=topology.COMMANDS, routing_key="nobody.do.v1", body=b"{}", headers={}))

    async def test_a_missing_queue_is_said_by_readiness(self, probe: Probe) -> None:
        if probe.place.management_url is None:
            pytest.skip("needs the broker's management API")
        async with management(probe.place.management_url) as http:
            await http.delete(f"/api/queues/{probe.place.vhost}/{topology.lane(NAME)}")

            await until(lambda: _trouble(http, probe, "probe.in.v1"))

    async def test_the_outbox_is_sent_once_its_exchange_is_back(self, probe: Probe, caplog: pytest.LogCaptureFixture) -> None:
        """A broker that lost its disk has none until `./tender topology` declares it; the sweep used to end there for good."""
        connection = await aio_pika.connect(probe.place.amqp_url)
        async with connection:
            await (await connection.channel()).exchange_delete(topology.EVENTS)
        await probe.rows(
            "INSERT INTO outbox (id, routing_key, headers, body, available_at, exchange)"
            " VALUES ($1, 'probe.happened.v1', '{}', '{}', now(), $2)",
            new_id(),
            topology.EVENTS,
        )
        await until(lambda: _has_said(caplog, "the outbox cannot be sent"))

        await topology.declare(probe.place.amqp_url, [NAME])

        await until(lambda: _empty(probe))

    async def test_a_login_that_is_refused_for_a_while_kills_no_command(self, probe: Probe, caplog: pytest.LogCaptureFixture) -> None:
        """A password that is changed at the database before it is changed here."""
        owner = await asyncpg.connect(probe.place.database_url)
        role = role_of(NAME)
        async with httpx.AsyncClient() as http:
            await owner.execute(f"ALTER ROLE {role} NOLOGIN")
            await owner.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
            await until(lambda: _trouble(http, probe, "not permitted to log in", check="database"))
            envelope = await probe.send()
            await until(lambda: _has_said(caplog, "InvalidAuthorizationSpecificationError"))
            assert await probe.dead() is None

            await owner.execute(f"ALTER ROLE {role} LOGIN")
            await owner.close()

        await until(lambda: _is(probe, envelope, "done"))

    async def test_declaring_twice_changes_nothing(self, bare_place: Place) -> None:
        await topology.declare(bare_place.amqp_url, [NAME])
        first = await _definitions(bare_place)
        await topology.declare(bare_place.amqp_url, [NAME])

        assert first["queues"]
        assert await _definitions(bare_place) == first

    async def test_a_broker_that_is_away_is_said_in_one_line(self) -> None:
        with pytest.raises(topology.TopologyRefused, match="cannot be reached"):
            await topology.declare("amqp://guest:guest@127.0.0.1:1/", [NAME])


async def _definitions(place: Place) -> dict[str, list[str]]:
    async with management(place.management_url) as http:
        answer = (await http.get(f"/api/definitions/{quote(place.vhost, safe='')}")).json()
    return {name: sorted(map(str, answer[name])) for name in ("queues", "exchanges", "bindings", "policies")}


async def _is(probe: Probe, envelope: Any, state: str) -> bool:
    return await probe.state(envelope) == state


def _command_of(store_id: UUID) -> Envelope:
    return Envelope(id=new_id(), store_id=store_id, environment=Environment.SANDBOX, source="tests", actor="tests", correlation_id="probe")


async def _all_are_done(probe: Probe, envelopes: list[Envelope]) -> bool:
    return {await probe.state(envelope) for envelope in envelopes} == {"done"}


async def _handling(probe: Probe, count: int) -> bool:
    return probe.counted.handling >= count


async def _tried(probe: Probe, times: int) -> bool:
    return probe.counted.tries >= times


async def _quiet(replies: Replies) -> bool:
    return replies.trouble is None


async def _idle(probe: Probe) -> bool:
    return probe.counted.handling == 0 and await waiting(probe.place, topology.lane(NAME)) == 0


async def _has_said(caplog: pytest.LogCaptureFixture, words: str) -> bool:
    return words in caplog.text


async def _empty(probe: Probe) -> bool:
    return not await probe.rows("SELECT FROM outbox")


async def _close_all(http: httpx.AsyncClient, vhost: str) -> bool:
    found = (await http.get(f"/api/vhosts/{vhost}/connections")).json()
    names = [c["name"] for c in found if "probe" in c.get("client_properties", {}).get("connection_name", "")]
    for name in names:
        await http.delete(f"/api/connections/{name}")
    return bool(names)


async def _trouble(http: httpx.AsyncClient, probe: Probe, words: str, *, check: str = "broker") -> bool:
    answer = await http.get(f"{probe.parts.monitoring_url}/health/ready")
    return answer.status_code == 503 and words in answer.json()["checks"][check]


class TestConsumer:
    @pytest.mark.parametrize("turns", range(0, 400, 20))
    async def test_stops_at_whatever_moment_of_a_reconnect_it_is_told(self, place: Place, turns: int) -> None:
        async def never(_: Received) -> None:
            raise AssertionError("nothing can come from a queue that is not there")

        async with Consumer(place.amqp_url, ["missing.v1"], never, name="tests", prefetch=1) as consumer:
            await until(lambda: _looked(consumer))
            for _ in range(turns):
                await asyncio.sleep(0)
            stopping = asyncio.create_task(consumer.__aexit__(None, None, None))

            await until(lambda: _over(stopping), timeout_seconds=10)


async def _looked(consumer: Consumer) -> bool:
    return "missing.v1" in (consumer.trouble or "")


async def _over(task: "asyncio.Task[None]") -> bool:
    return task.done()
