"""The hostile soak itself: one short attack from end to end, and what counts as a finding."""

from pathlib import Path

import pytest

from tests.faults import hostile
from tests.faults.attacks import BY_NAME, Outcome
from tests.faults.bystander import Measured
from tests.faults.hostile import FLOOR_SECONDS, MEMORY_FLOOR_BYTES, Phase, Report, attack_all, drawn
from tests.faults.nursery import Nursery
from tests.faults.system import a_system
from tests.world import Place

ATTACK_SECONDS = 1.0


async def test_a_short_attack_leaves_the_other_store_unharmed(
    nursery: Nursery, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "SETTLE_SECONDS", 0.0)
    attacks = [BY_NAME["H2"], BY_NAME["H3"]]

    async with a_system(nursery, place, tmp_path, webhooks=True, allow_private_endpoints=True) as (system, world):
        report = await attack_all(system, world, attacks, attack_seconds=ATTACK_SECONDS, say=lambda _: None)

    assert [phase.measured.failures for phase in report.phases] == [[], []]
    heads, samples = (phase.outcome for phase in report.phases)
    # A flood ends: by its answer, or by the reset after it where the answer is lost to it.
    assert heads.statuses.keys() & {"0", "431"}
    assert {"401", "431"} <= samples.statuses.keys()
    assert report.phases[1].memory_after.keys() == {"gateway", "payments", "webhooks"}
    assert "H3 huge headers" in drawn(report)


QUIET = Measured(requests=[0.1] * 200, deliveries=[0.2] * 50, failures=[])


def _phase(
    *, requests: float = 0.1, deliveries: float = 0.2, failures: tuple[str, ...] = (), memory_after: int = 100, inside: int = 0
) -> Phase:
    measured = Measured(requests=[requests] * 200, deliveries=[deliveries] * 50, failures=list(failures))
    return Phase(
        name="H0",
        about="",
        outcome=Outcome(statuses={"401": 1}, reached_inside=inside),
        measured=measured,
        memory_filled={"gateway": 100},
        memory_after={"gateway": memory_after} if memory_after else {},
    )


@pytest.mark.parametrize(
    ("phase", "finding"),
    [
        pytest.param(_phase(), None, id="nothing"),
        pytest.param(_phase(requests=0.1 + FLOOR_SECONDS - 0.01), None, id="within-the-floor"),
        pytest.param(_phase(requests=0.1 + FLOOR_SECONDS + 0.01), "H0: requests p99 100 ms -> 360 ms", id="slow-requests"),
        pytest.param(_phase(deliveries=1.0), "H0: deliveries p99 200 ms -> 1000 ms", id="slow-deliveries"),
        pytest.param(_phase(failures=("order: 503",)), "H0: 1 failures, the first: order: 503", id="a-failure"),
        pytest.param(_phase(memory_after=MEMORY_FLOOR_BYTES + 101), "H0: gateway grew from 0 to 24 MiB", id="memory"),
        pytest.param(_phase(memory_after=0), "H0: gateway is gone", id="a-dead-service"),
        pytest.param(_phase(inside=2), "H0: 2 connections reached an inside address", id="inside"),
    ],
)
def test_findings_name_each_harm(phase: Phase, finding: str | None) -> None:
    assert Report(quiet=QUIET, phases=[phase]).findings == ([] if finding is None else [finding])
