"""Events that are taken together, seen through messages: each once, whatever becomes of the others."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.ids import new_id
from shared.messages import Envelope, Environment, encode, type_of
from tests.shared.probe import Probe, Told, a_probe
from tests.world import Place, until

EVENTS = 40


@pytest.fixture
async def probe(bare_place: Place, tmp_path: Path) -> AsyncIterator[Probe]:
    async with a_probe(bare_place, tmp_path, group_pause_seconds=0.3) as made:
        yield made


async def test_many_are_one_write_and_each_is_done_once(probe: Probe) -> None:
    sent = [_envelope() for _ in range(EVENTS)]

    await asyncio.gather(*(_tell(probe, envelope) for envelope in sent))
    await until(lambda: _all_done(probe, sent))

    assert sum(len(group) for group in probe.counted.groups) == EVENTS
    assert max(len(group) for group in probe.counted.groups) > 1
    assert probe.counted.alone == []
    assert await _counts(probe, sent) == [1] * EVENTS


async def test_the_same_one_twice_is_done_once(probe: Probe) -> None:
    envelope = _envelope()

    await asyncio.gather(*(_tell(probe, envelope, about="one") for _ in range(5)))
    await until(lambda: _all_done(probe, [envelope]))
    await _tell(probe, envelope, about="one")
    # A later one is done after it, so that it has been looked at.
    last = _envelope()
    await _tell(probe, last)
    await until(lambda: _all_done(probe, [last]))

    assert await _counts(probe, [envelope]) == [1]


async def test_two_about_the_same_go_one_after_the_other_as_they_came(probe: Probe) -> None:
    sent = [_envelope() for _ in range(9)]

    for n, envelope in enumerate(sent):
        await _tell(probe, envelope, about=f"{n % 3}")
    await until(lambda: _all_done(probe, sent))

    assert all(len(set(group)) == len(group) for group in probe.counted.groups)
    assert probe.counted.alone == []
    for about in range(3):
        ours = [envelope.id for envelope in sent[about::3]]
        assert [each for each in probe.counted.taken if each in ours] == ours
    assert await _counts(probe, sent) == [1] * len(sent)


async def test_what_came_after_one_that_was_left_is_not_taken_before_it(probe: Probe) -> None:
    first, second = _envelope(), _envelope()

    await _tell(probe, first, about="one", how="alone")
    await _tell(probe, second, about="one")
    await until(lambda: _all_done(probe, [first, second]))

    assert probe.counted.groups[0] == ["one"]
    assert probe.counted.taken[0] == first.id
    assert await _counts(probe, [first, second]) == [1, 1]


async def test_what_a_group_leaves_is_done_alone(probe: Probe) -> None:
    sent = [_envelope() for _ in range(6)]

    await asyncio.gather(*(_tell(probe, envelope, about=f"{n}", how="well" if n % 2 else "alone") for n, envelope in enumerate(sent)))
    await until(lambda: _all_done(probe, sent))

    assert sorted(probe.counted.alone) == ["0", "2", "4"]
    assert await _counts(probe, sent) == [1] * len(sent)


async def test_a_group_that_fails_is_done_one_by_one(probe: Probe) -> None:
    sent = [_envelope() for _ in range(6)]

    await asyncio.gather(*(_tell(probe, envelope, about=f"{n}", how="well" if n else "bug") for n, envelope in enumerate(sent)))
    await until(lambda: _all_done(probe, sent))

    assert "0" in probe.counted.alone
    assert await _counts(probe, sent) == [1] * len(sent)


async def test_one_that_cannot_be_read_holds_nobody_up(probe: Probe) -> None:
    sent, broken = [_envelope() for _ in range(3)], b'{"type":"probe.told.v1"'

    await asyncio.gather(*(_tell(probe, envelope) for envelope in sent), probe.send_raw(broken, kind=type_of(Told)))
    dead = await until(probe.dead)
    await until(lambda: _all_done(probe, sent))

    assert (dead.body, dead.headers["dead_reason"].split(":")[0]) == (broken, "Poison")
    assert await _counts(probe, sent) == [1] * len(sent)


async def test_one_with_other_content_than_before_is_refused(probe: Probe) -> None:
    envelope = _envelope()
    await _tell(probe, envelope, about="one")
    await until(lambda: _all_done(probe, [envelope]))

    await _tell(probe, envelope, about="another")

    dead = await until(probe.dead)
    assert "DifferentContent" in dead.headers["dead_reason"]
    assert await _counts(probe, [envelope]) == [1]


def _envelope() -> Envelope:
    return Envelope(id=new_id(), store_id=new_id(), environment=Environment.SANDBOX, source="tests", actor="tests", correlation_id="probe")


async def _tell(probe: Probe, envelope: Envelope, *, about: str = "", how: str = "well") -> None:
    await probe.send_raw(encode(Told(about=about or str(envelope.id), how=how)), kind=type_of(Told), envelope=envelope)


async def _counts(probe: Probe, sent: list[Envelope]) -> list[int]:
    return [await probe.done(envelope) for envelope in sent]


async def _all_done(probe: Probe, sent: list[Envelope]) -> bool:
    rows = await probe.rows("SELECT FROM inbox WHERE message_id = ANY($1::uuid[]) AND state = 'done'", [each.id for each in sent])
    return len(rows) == len(sent)
