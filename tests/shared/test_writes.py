"""Writes that insist on what they found: commands in the inbox, messages in the outbox, and everything or nothing of a batch."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from uuid import UUID

import msgspec
import pytest

from shared import inbox
from shared.bus import Letter, Unroutable
from shared.database import Pool, Rows, Statement, connected, open_pool
from shared.errors import Contended, Unavailable
from shared.ids import new_id
from shared.inbox import CameBefore, Inbox, Seen, State, digest_of
from shared.messages import Envelope, Environment
from shared.outbox import Parcel, Relay, promise, promises
from tests.world import Place, payments_settings, until

KIND = "payments.capture.v1"
DIGEST, OTHER_DIGEST = digest_of(KIND, b"one"), digest_of(KIND, b"another")
SWEPT_WITHIN_SECONDS = 10.0


@pytest.fixture(scope="module")
async def pool(place: Place) -> AsyncIterator[Pool]:
    opened = await open_pool(payments_settings(place, "").database_url, connections=4)
    yield opened
    await opened.close()


async def fetch(pool: Pool, sql: str, *arguments: Any) -> Any:
    async with connected(pool) as db:
        return await db.fetch(sql, *arguments)


def an_envelope(**changes: Any) -> Envelope:
    facts: dict[str, Any] = {
        "id": new_id(),
        "store_id": new_id(),
        "environment": Environment.SANDBOX,
        "source": "tests",
        "actor": "tests",
        "correlation_id": "writes",
        "reply_to": "gateway.reply.first",
    }
    return Envelope(**{**facts, **changes})


async def a_command(pool: Pool, state: State, **changes: Any) -> Envelope:
    """Have a command in the inbox in a given state."""
    envelope = an_envelope(**changes)
    match state:
        case State.OPEN:
            await Rows(pool).write([inbox.begun(envelope, KIND, DIGEST)])
        case State.DONE:
            await Rows(pool).write([inbox.finished(envelope, KIND, DIGEST, b"first", must=True)])
        case State.PARKED:
            await inbox.failed(pool, envelope, KIND, DIGEST, error="a bug", parked=True)
        case State.DISCARDED:
            async with connected(pool) as db:
                await inbox.put_away(db, envelope, KIND, DIGEST, b"first")
    assert (await state_of(pool, envelope))[0] == state
    return envelope


async def state_of(pool: Pool, envelope: Envelope) -> Any:
    [row] = await fetch(pool, "SELECT state, reply, attempts, last_error, reply_to FROM inbox WHERE message_id = $1", envelope.id)
    return tuple(row)


class TestBatch:
    """`must` may not be true by itself: what does not hold undoes everything (`Rows.write`)."""

    @pytest.mark.parametrize(
        ("rows", "there"),
        [("1", 0), ("1", 2), ("cardinality($1)", 1)],
        ids=["no row", "one too many", "fewer than named"],
    )
    async def test_that_misses_a_row_writes_nothing(self, pool: Pool, rows: str, there: int) -> None:
        ids = [new_id(), new_id()]
        for each in ids[:there]:
            await Rows(pool).write([_promised(each)])
        also = new_id()

        with pytest.raises(Contended):
            await Rows(pool).write([_promised(also), _deleted(ids, rows)])

        assert await _promised_of(pool, [also, *ids]) == set(ids[:there])
        await Rows(pool).write([_deleted(ids, str(there))])

    async def test_that_finds_its_rows_writes_everything(self, pool: Pool) -> None:
        ids, also = [new_id(), new_id()], new_id()
        await Rows(pool).write([_promised(ids[0])])
        await Rows(pool).write([_promised(ids[1])])

        given = await Rows(pool).write([_promised(also), msgspec.structs.replace(_deleted(ids, "cardinality($1)"), gives="count(*)")])

        assert (given, await _promised_of(pool, [also, *ids])) == ([2], {also})
        await Rows(pool).write([_deleted([also], "1")])

    @pytest.mark.parametrize("missing", [0, 1], ids=["the first", "the second"])
    async def test_that_insists_twice_insists_on_both(self, pool: Pool, missing: int) -> None:
        ids = [new_id(), new_id()]
        there = [ids[1 - missing]]
        await Rows(pool).write([_promised(there[0])])

        with pytest.raises(Contended):
            await Rows(pool).write([_deleted([each], "1") for each in ids])

        assert await _promised_of(pool, ids) == set(there)
        await Rows(pool).write([_deleted(there, "1")])

    async def test_that_misses_a_row_undoes_no_other_of_its_group(self, pool: Pool) -> None:
        rows, kept, lost = Rows(pool), [new_id() for _ in range(3)], new_id()
        for each in kept:
            await rows.write([_promised(each)])
        also = {each: new_id() for each in (*kept, lost)}

        results = await asyncio.gather(
            *(rows.write([_promised(also[each]), _deleted([each], "1")]) for each in (kept[0], lost, *kept[1:])), return_exceptions=True
        )

        assert [type(each) for each in results] == [list, Contended, list, list]
        assert await _promised_of(pool, [*kept, *also.values()]) == {also[each] for each in kept}
        await rows.write([_deleted([also[each] for each in kept], "3")])


def _promised(message_id: UUID) -> Statement:
    return promise(a_parcel(message_id), head_start_seconds=3600)


def _deleted(ids: list[UUID], rows: str) -> Statement:
    return Statement("DELETE FROM outbox WHERE id = ANY($1::uuid[]) RETURNING id", (ids,), must=True, rows=rows)


async def _promised_of(pool: Pool, ids: list[UUID]) -> set[UUID]:
    return {row["id"] for row in await fetch(pool, "SELECT id FROM outbox WHERE id = ANY($1::uuid[])", ids)}


class TestInbox:
    @pytest.mark.parametrize("state", [State.OPEN, State.PARKED])
    async def test_what_is_under_way_is_begun_again_and_ends_once(self, pool: Pool, state: State) -> None:
        envelope = await a_command(pool, state)
        again = msgspec.structs.replace(envelope, reply_to="gateway.reply.second")

        await Rows(pool).write([inbox.begun(again, KIND, DIGEST)])
        [awaited] = await Rows(pool).write([inbox.finished(envelope, KIND, DIGEST, b"first", must=True)])

        assert awaited == "gateway.reply.second"
        assert (await state_of(pool, envelope))[:2] == ("done", b"first")

    async def test_what_was_discarded_is_not_begun_again(self, pool: Pool) -> None:
        """A command that an operator put away between a worker's look into the inbox and its write would be carried out."""
        envelope = await a_command(pool, State.DISCARDED)
        also = new_id()

        with pytest.raises(Contended):
            await Rows(pool).write([inbox.begun(envelope, KIND, DIGEST), _promised(also)])

        assert (await state_of(pool, envelope))[:2] == ("discarded", b"first")
        assert await _promised_of(pool, [also]) == set()

    @pytest.mark.parametrize("state", [State.DONE, State.DISCARDED])
    async def test_an_answer_is_kept_for_ever(self, pool: Pool, state: State) -> None:
        """The same id has the same result: another copy's reply, failure, discard or conclusion changes nothing."""
        envelope = await a_command(pool, state)
        before = await state_of(pool, envelope)

        with pytest.raises(Contended):
            await Rows(pool).write([inbox.finished(envelope, KIND, DIGEST, b"second", must=True)])
        given = await Rows(pool).write([inbox.finished(envelope, KIND, DIGEST, b"second", must=False)])
        with pytest.raises(Contended):
            await Rows(pool).write([inbox.all_finished([(envelope, DIGEST), (an_envelope(), DIGEST)], KIND, b"second")])
        for parked in (False, True):
            await inbox.failed(pool, envelope, KIND, DIGEST, error="a bug", parked=parked)
        async with connected(pool) as db:
            put_away = await inbox.put_away(db, envelope, KIND, OTHER_DIGEST if state is State.DISCARDED else DIGEST, b"second")

        assert (given, put_away, await state_of(pool, envelope)) == ([None], None, before)

    @pytest.mark.parametrize("state", [State.OPEN, State.PARKED])
    async def test_what_is_put_away_is_what_was_said(self, pool: Pool, state: State) -> None:
        envelope = await a_command(pool, state)
        async with connected(pool) as db:
            others = await inbox.put_away(db, envelope, KIND, OTHER_DIGEST, b"second")
            before = await state_of(pool, envelope)
            ours = await inbox.put_away(db, envelope, KIND, DIGEST, b"second")

        assert (others, before[0], ours) == (None, state, "gateway.reply.first")
        assert (await state_of(pool, envelope))[:2] == ("discarded", b"second")

    async def test_failures_are_counted_until_the_last_parks(self, pool: Pool) -> None:
        envelope = await a_command(pool, State.OPEN)

        for parked in (False, False, True):
            await inbox.failed(pool, envelope, KIND, DIGEST, error=f"a bug; parked: {parked}", parked=parked)

        assert (await state_of(pool, envelope))[:4] == ("parked", None, 3, "a bug; parked: True")

    @pytest.mark.parametrize("state", [None, *State])
    @pytest.mark.parametrize("digest", [DIGEST, OTHER_DIGEST], ids=["the same", "other content"])
    async def test_what_came_before_is_seen_before_anything_is_read(self, pool: Pool, state: State | None, digest: bytes) -> None:
        """Only what is new, or open with the same content, may be decided on."""
        envelope = an_envelope() if state is None else await a_command(pool, state)
        goes_on = state is None or (state is State.OPEN and digest == DIGEST)

        async with connected(pool) as db:
            try:
                row = await inbox.read_beside(db, envelope, digest, "SELECT $1::int AS number", 7)
            except CameBefore as before:
                found: Seen | None = before.seen
                assert not goes_on
            else:
                assert goes_on
                assert row is not None
                assert row["number"] == 7
                found = None if state is None else Seen(State.OPEN, DIGEST, None, 0)

        assert await Inbox(pool).seen(envelope) == found

    @pytest.mark.parametrize(
        "changes",
        [{"id": new_id()}, {"store_id": new_id()}, {"environment": Environment.PRODUCTION}, {"source": "gateway"}],
        ids=["id", "store", "environment", "source"],
    )
    async def test_another_senders_command_is_another(self, pool: Pool, changes: dict[str, Any]) -> None:
        envelope = await a_command(pool, State.DONE)
        other = msgspec.structs.replace(envelope, **changes)

        async with connected(pool) as db:
            assert await inbox.read_beside(db, other, DIGEST, "SELECT 1 AS number") is not None
            assert await inbox.seen_as(db, other) is None
        assert await Inbox(pool).each_seen([other, envelope]) == [None, Seen(State.DONE, DIGEST, b"first", 0)]
        await Rows(pool).write([inbox.finished(other, KIND, DIGEST, b"second", must=True)])

        assert [each and each.reply for each in await Inbox(pool).each_seen([envelope, other])] == [b"first", b"second"]

    async def test_only_answers_older_than_any_retry_are_deleted(self, pool: Pool) -> None:
        """Of deleting what is younger than the border instead of what is older; nothing open or parked ever goes."""
        old = {state: await a_command(pool, state) for state in State}
        young = {state: await a_command(pool, state) for state in State}
        for rows, hours in ((old, 1), (young, -1)):
            await fetch(
                pool,
                """
                UPDATE inbox
                   SET received_at = now() - interval '400 days',
                       finished_at = CASE WHEN finished_at IS NULL THEN NULL
                                          ELSE now() - make_interval(days => $2, hours => $3) END
                 WHERE message_id = ANY($1::uuid[])
                """,
                [each.id for each in rows.values()],
                inbox.KEPT_DAYS,
                hours,
            )

        assert await inbox.forget_finished(pool) == 2

        ids = [each.id for each in (*old.values(), *young.values())]
        left = {row["message_id"] for row in await fetch(pool, "SELECT message_id FROM inbox WHERE message_id = ANY($1::uuid[])", ids)}
        assert left == {old[State.OPEN].id, old[State.PARKED].id, *(each.id for each in young.values())}


class _Broker:
    """A publisher that notes which rows are there while it publishes, and fails once for each message that it is given a failure for."""

    def __init__(self, pool: Pool, failures: Mapping[UUID, Exception] | None = None) -> None:
        self._pool = pool
        self._failures = dict(failures or {})
        self.published: list[UUID] = []
        self.tries = 0
        # Of each try, whether its row was there and was committed.
        self.rows_there: list[bool] = []
        self.gate: asyncio.Event | None = None

    async def publish(self, letter: Letter) -> None:
        self.tries += 1
        message_id = UUID(str(letter.headers["id"]))
        self.rows_there.append(bool(await fetch(self._pool, "SELECT FROM outbox WHERE id = $1", message_id)))
        if self.gate is not None:
            await self.gate.wait()
        if (failure := self._failures.pop(message_id, None)) is not None:
            raise failure
        self.published.append(message_id)


def a_parcel(message_id: UUID) -> Parcel:
    return Parcel(id=message_id, exchange="tender.events", routing_key="payments.changed.v1", headers={"id": str(message_id)}, body=b"{}")


def a_relay(pool: Pool, broker: _Broker) -> Relay:
    return Relay(pool, broker, service="tests", head_start_seconds=0)  # type: ignore[arg-type]


class TestOutbox:
    async def test_a_row_goes_only_after_its_message_went(self, pool: Pool) -> None:
        """Of a relay that deletes before it publishes: a crash between the two would lose the message."""
        parcel, broker = a_parcel(new_id()), _Broker(pool)
        await Rows(pool).write([promise(parcel, head_start_seconds=3600)])

        a_relay(pool, broker).send_soon([parcel])

        await until(lambda: _gone(pool, parcel.id))
        assert (broker.published, broker.rows_there) == ([parcel.id], [True])

    @pytest.mark.parametrize("failure", [Unavailable("the broker is away"), Unroutable("no queue is bound")], ids=["silent", "unroutable"])
    async def test_what_could_not_be_sent_at_once_is_swept(self, pool: Pool, failure: Exception) -> None:
        parcels = [a_parcel(new_id()) for _ in range(3)]
        broker = _Broker(pool, {parcels[1].id: failure})
        relay = a_relay(pool, broker)
        await Rows(pool).write([promises(parcels, head_start_seconds=0)])
        relay.send_soon(parcels)
        sent = [parcels[0].id, parcels[2].id]
        await until(lambda: _gone(pool, *sent))

        assert await relay.sweep_once() == 1

        assert (set(broker.published[:2]), broker.published[2:], broker.rows_there) == (set(sent), [parcels[1].id], [True] * 4)
        assert await relay.sweep_once() == 0

    async def test_a_sweep_that_fails_midway_loses_nothing(self, pool: Pool) -> None:
        parcels = [a_parcel(new_id()) for _ in range(3)]
        broker = _Broker(pool, {parcels[1].id: Unavailable("the broker is away")})
        await Rows(pool).write([promises(parcels, head_start_seconds=0)])
        relay = a_relay(pool, broker)

        with pytest.raises(Unavailable):
            await relay.sweep_once()
        assert await _promised_of(pool, [each.id for each in parcels]) == {each.id for each in parcels}

        assert await relay.sweep_once() == 3
        assert {each.id for each in parcels} == set(broker.published)
        assert all(broker.rows_there)
        assert await _gone(pool, *(each.id for each in parcels))

    async def test_two_sweeps_at_once_send_each_message_once(self, pool: Pool) -> None:
        parcel, broker = a_parcel(new_id()), _Broker(pool)
        broker.gate = asyncio.Event()
        await Rows(pool).write([promise(parcel, head_start_seconds=0)])
        sweeping = asyncio.create_task(a_relay(pool, broker).sweep_once())
        await until(lambda: _tried(broker, 1))

        try:
            other = await asyncio.wait_for(a_relay(pool, broker).sweep_once(), SWEPT_WITHIN_SECONDS)
        finally:
            broker.gate.set()
            swept = await sweeping

        assert (other, swept, broker.published) == (0, 1, [parcel.id])

    async def test_its_writer_has_a_head_start_over_the_sweep(self, pool: Pool) -> None:
        early, late, broker = [a_parcel(new_id()) for _ in range(2)], [a_parcel(new_id()) for _ in range(2)], _Broker(pool)
        for parcels, seconds in ((late, 3600), (early, 0)):
            await Rows(pool).write([promise(parcels[0], head_start_seconds=seconds), promises(parcels[1:], head_start_seconds=seconds)])

        assert await a_relay(pool, broker).sweep_once() == 2

        assert set(broker.published) == {each.id for each in early}
        await Rows(pool).write([_deleted([each.id for each in late], "2")])


async def _gone(pool: Pool, *ids: UUID) -> bool:
    return not await _promised_of(pool, list(ids))


async def _tried(broker: _Broker, times: int) -> bool:
    return broker.tries >= times
