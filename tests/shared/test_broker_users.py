"""Broker users: each service may do what it needs and nothing else; whoever faces the public can move no money."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError
from aiormq.exceptions import ChannelAccessRefused

from shared import topology
from shared.bus import Consumer, Received, depths
from shared.contracts import books, dead_letters, fulfillment, payments, reconciler, settlements, webhooks
from shared.contracts.credentials import MESSAGES as CREDENTIALS
from shared.messages import Event, type_of
from tests.shared.strict_broker import a_strict_broker
from tests.world import Place, until

COMMANDS = sorted(
    {
        type_of(kind)
        for kind in (
            *(*payments.MESSAGES, *webhooks.MESSAGES, *fulfillment.MESSAGES),
            *(*books.MESSAGES, *reconciler.MESSAGES, *CREDENTIALS, *settlements.MESSAGES, *dead_letters.MESSAGES),
        )
        if not issubclass(kind, Event)
    }
)
MONEY = re.compile(r"\.(authorize|confirm|capture|void|refund|decide_outcome|buy_label|void_label)\.v\d+$")
SERVICES = tuple(topology.TOLD)

REQUESTERS = [service for service, asked in topology.REPLIERS.items() if asked]

Attempt = Callable[[aio_pika.abc.AbstractChannel], Awaitable[object]]


def may_send(service: str, command: str) -> bool:
    return re.search(topology.permissions_of(service).commands, command) is not None


class TestWhatTheyMaySend:
    def test_nobody_but_the_gateway_can_have_money_moved(self) -> None:
        senders = {service for service in SERVICES for command in COMMANDS if MONEY.search(command) and may_send(service, command)}

        assert senders == {"gateway"}

    def test_everything_can_be_sent_by_somebody(self) -> None:
        nobody = [command for command in COMMANDS if not any(may_send(service, command) for service in SERVICES)]

        # What is only ever brought in by an operator's own hand.
        assert nobody == ["background.payments.observe.v1"]

    def test_the_public_webhook_process_hands_events_on_and_nothing_else(self) -> None:
        assert [command for command in COMMANDS if may_send("webhooks", command)] == [
            "background.fulfillment.take_event.v1",
            "background.payments.take_event.v1",
            "background.webhooks.process.v1",
        ]

    def test_all_that_are_asked_can_answer_and_no_others(self) -> None:
        """One declaration: the exchange of a service's replies is open to those it can send a query or a command to."""
        for service in SERVICES:
            asked = {command.removeprefix("background.").split(".")[0] for command in COMMANDS if may_send(service, command)}

            # Webhooks sends itself commands that it awaits no reply to.
            assert asked - ({service} & {"webhooks"}) == set(topology.REPLIERS[service])


@pytest.fixture
async def other_replies(place: Place) -> AsyncIterator[aio_pika.abc.AbstractChannel]:
    """A channel of the broker's owner, for queues as another service would have them."""
    connection = await aio_pika.connect(place.amqp_url)
    async with connection:
        yield await connection.channel()


@pytest.mark.parametrize("service", SERVICES)
class TestAtTheBroker:
    async def test_reads_no_queue_of_another(self, place: Place, service: str) -> None:
        others = [topology.lane(name) for name in ("payments", "webhooks", "fulfillment", "reconciler") if name != service]
        for queue in (*others, topology.UNROUTED_QUEUE):
            assert not await _allowed(place, service, partial(_read, queue=queue)), queue
        attends = service == topology.ATTENDING
        assert await _allowed(place, service, partial(_read, queue=topology.dead_queue("payments"))) is attends

    async def test_declares_and_deletes_nothing(self, place: Place, service: str) -> None:
        assert not await _allowed(place, service, lambda channel: channel.declare_queue("payments.in.v2", durable=True))
        assert not await _allowed(place, service, lambda channel: channel.queue_delete(topology.lane("payments")))
        assert not await _allowed(place, service, lambda channel: channel.declare_exchange("tender.mine", durable=True))

    async def test_goes_round_no_topic_by_the_default_exchange(self, place: Place, service: str) -> None:
        async def publish(channel: aio_pika.abc.AbstractChannel) -> None:
            await channel.default_exchange.publish(aio_pika.Message(b"{}"), topology.lane("payments"))

        assert not await _allowed(place, service, publish)

    @pytest.mark.parametrize("other", ["payments", "webhooks"])
    async def test_puts_nothing_into_another_lane_by_retrying_or_parking(self, place: Place, service: str, other: str) -> None:
        """What comes back from a delay or from the dead letters goes to whose it was, so it is no way round the topics."""
        own = service == other
        for name, may in (
            (topology.retry_exchange(other, "1s"), own),
            (topology.parking_exchange(other), own),
            (topology.back_exchange(other), service == topology.ATTENDING),
            (topology.DEAD, False),
        ):
            assert await _allowed(place, service, partial(_publish, exchange=name)) is may, name

    @pytest.mark.parametrize("other", REQUESTERS)
    async def test_reads_no_reply_of_another(
        self, place: Place, other_replies: aio_pika.abc.AbstractChannel, service: str, other: str
    ) -> None:
        """Red team 113 and 114: only the asking service hears its replies, and only those it asks can send any."""
        exchange, queue, own = topology.reply_exchange(other), topology.reply_queue(other, "spy"), service == other
        await other_replies.declare_queue(topology.reply_queue(other, "shown"), auto_delete=True)
        for name, attempt, may in (
            ("declares", partial(_declare, queue=queue), own),
            ("binds its own", partial(_bind_own, service=service, exchange=exchange), own),
            ("binds", partial(_bind, queue=topology.reply_queue(other, "shown"), exchange=exchange), own),
            ("reads", partial(_read, queue=topology.reply_queue(other, "shown")), own),
            ("deletes", partial(_delete, queue=topology.reply_queue(other, "shown")), own),
            ("sends", partial(_publish, exchange=exchange), service in topology.REPLIERS[other]),
        ):
            assert await _allowed(place, service, attempt) is may, name

    async def test_sends_no_refund_unless_it_is_the_gateway(self, place: Place, service: str) -> None:
        async def publish(channel: aio_pika.abc.AbstractChannel) -> None:
            exchange = await channel.get_exchange(topology.COMMANDS, ensure=False)
            # To a lane that nobody is bound to, so that nothing comes of what is let through.
            await exchange.publish(aio_pika.Message(b"{}"), "payments.refund.v1", mandatory=False)

        assert await _allowed(place, service, publish) is (service == "gateway")


CONSUMERS = topology.CONSUMERS
ALL_QUEUES = [*(name for service in CONSUMERS for name in topology.names(service)), topology.UNROUTED_QUEUE]


class TestLookingAtQueues:
    """RabbitMQ from 4.2.7 and 4.3.1 on shows a queue to those alone who have some right on it (rabbitmq-server 16085, 16272)."""

    @pytest.mark.parametrize("service", CONSUMERS)
    async def test_a_service_may_look_at_all_it_needs(self, place: Place, service: str) -> None:
        may = topology.permissions_of(service)
        without_rights = [
            name for name in topology.names(service) if not any(re.search(right, name) for right in (may.configure, may.write, may.read))
        ]

        assert without_rights == []
        for name in topology.names(service):
            assert await _allowed(place, service, partial(_look, queue=name)), name

    @pytest.mark.parametrize("service", SERVICES)
    async def test_no_user_can_bind_or_unbind_a_lane(self, place: Place, service: str) -> None:
        """Writing to a queue allows to bind it to what one may read: that would be a way round the topics."""
        for name in [topology.lane(each) for each in CONSUMERS] + [topology.background_lane(each) for each in CONSUMERS]:
            for exchange in (topology.reply_exchange("gateway"), topology.reply_exchange(service), topology.COMMANDS, topology.EVENTS):
                assert not await _allowed(place, service, partial(_bind, queue=name, exchange=exchange)), (name, exchange)

    async def test_the_observer_sees_how_full_every_queue_is(self, place: Place) -> None:
        shown = [name for name in ALL_QUEUES if ".retry." not in name]

        found = await depths(place.amqp_of(topology.OBSERVER), shown)

        may = topology.observer_permissions()
        assert [name for name in shown if not re.search(may.write, name)] == []
        assert sorted(found) == sorted(shown)

    async def test_the_observer_can_do_nothing_else(self, place: Place) -> None:
        for name in ALL_QUEUES:
            assert not await _allowed(place, topology.OBSERVER, partial(_read, queue=name)), name
            for exchange in (topology.reply_exchange("gateway"), topology.COMMANDS, topology.EVENTS, topology.DEAD):
                assert not await _allowed(place, topology.OBSERVER, partial(_bind, queue=name, exchange=exchange)), (name, exchange)
        for exchange in (topology.reply_exchange("gateway"), topology.COMMANDS, topology.EVENTS, topology.DEAD):
            assert not await _allowed(place, topology.OBSERVER, partial(_publish, exchange=exchange)), exchange
        assert not await _allowed(place, topology.OBSERVER, lambda channel: channel.declare_queue("payments.in.v2", durable=True))

    async def test_a_consumer_works_where_looking_is_refused(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        """RabbitMQ 4.2.6 and 4.3.0 ask for the right to configure, which no service has."""
        monkeypatch.setattr("shared.bus.consumer.WATCH_INTERVAL_SECONDS", 0.05)
        arrived: list[str] = []

        async def take(received: Received) -> None:
            arrived.append(received.type)
            await received.ack()

        may = topology.permissions_of("payments")
        async with a_strict_broker(place.amqp_of("payments"), configure=may.configure) as strict:
            consumer = Consumer(
                strict.url, [topology.lane("payments")], take, name="tests", prefetch=1, also_needed=topology.names("payments")
            )
            async with consumer:
                await until(lambda: _answer(consumer.trouble is None))
                await _allowed(place, "gateway", _command)
                await until(lambda: _answer("payments.get_order.v1" in arrived))
                # Once by what it needs, once by its watch, which then leaves it.
                await until(lambda: _answer(len(strict.refused) >= 2))
                for sent in range(2, 8):
                    await _allowed(place, "gateway", _command)
                    await until(partial(_count, arrived, "payments.get_order.v1", sent))
                assert (consumer.trouble, strict.refused) == (None, [topology.lane("payments")] * 2)
                await consumer.drain(1.0)

    async def test_depths_that_may_not_be_seen_are_left_out(self, place: Place) -> None:
        async with a_strict_broker(place.amqp_of(topology.OBSERVER), configure="^$") as strict:
            assert await depths(strict.url, ALL_QUEUES) == {}


async def _answer(value: bool) -> bool:
    return value


async def _count(arrived: list[str], kind: str, times: int) -> bool:
    return arrived.count(kind) == times


async def _command(channel: aio_pika.abc.AbstractChannel) -> None:
    exchange = await channel.get_exchange(topology.COMMANDS, ensure=False)
    await exchange.publish(aio_pika.Message(b"{}", type="payments.get_order.v1"), "payments.get_order.v1")


async def _look(channel: aio_pika.abc.AbstractChannel, queue: str) -> None:
    await channel.declare_queue(queue, passive=True)


async def _bind(channel: aio_pika.abc.AbstractChannel, queue: str, exchange: str) -> None:
    found = await channel.get_queue(queue, ensure=False)
    await found.bind(exchange, routing_key="gateway.reply.of_nobody")


async def _declare(channel: aio_pika.abc.AbstractChannel, queue: str) -> None:
    await channel.declare_queue(queue, exclusive=True, auto_delete=True)


async def _delete(channel: aio_pika.abc.AbstractChannel, queue: str) -> None:
    await channel.queue_delete(queue)


async def _bind_own(channel: aio_pika.abc.AbstractChannel, service: str, exchange: str) -> None:
    """Bind a queue that the user may declare, if there is any, to where another's replies go."""
    if not topology.REPLIERS[service]:
        raise ChannelAccessRefused
    queue = topology.reply_queue(service, "own")
    await _declare(channel, queue)
    await _bind(channel, queue, exchange)


async def _publish(channel: aio_pika.abc.AbstractChannel, exchange: str) -> None:
    found = await channel.get_exchange(exchange, ensure=False)
    await found.publish(aio_pika.Message(b"{}"), "a lane that nobody has", mandatory=False)


async def _read(channel: aio_pika.abc.AbstractChannel, queue: str) -> None:
    found = await channel.get_queue(queue, ensure=False)
    await found.get(fail=False)


async def _allowed(place: Place, service: str, attempt: Attempt) -> bool:
    connection = await aio_pika.connect(place.amqp_of(service))
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        try:
            await attempt(channel)
        except ChannelAccessRefused:
            return False
        except AMQPError as other:
            raise AssertionError(f"refused otherwise: {other}") from other
    return True
