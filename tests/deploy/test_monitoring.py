"""What is watched: metrics by the names that convention gives them, and a dashboard and alerts that ask for nothing else."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase

from deploy.state import ROOT
from services.fulfillment.app import build as build_fulfillment
from services.gateway.app import build as build_gateway
from services.payments.app import build as build_payments
from services.reconciler.app import build as build_reconciler
from services.webhooks.app import build as build_webhooks
from shared import telemetry

MONITORING = ROOT / "deploy" / "monitoring"
METRIC = re.compile(r"\b(tender_[a-z0-9_]+)")
LABELS = re.compile(r"(?:by|without) \(([a-z_, ]*)\)|\{([^}]*)\}")
# What a histogram or a counter is asked for by.
ENDINGS = re.compile(r"_(bucket|sum|count|total)$")
# How a replica's own counts are asked for, and how that which every replica counts as a whole.
OWN_SUMMED = re.compile(r"sum(?: by \([a-z_, ]*\) )?\((?:rate|increase)\($")
WHOLE_ONCE = re.compile(r"max(?: by \(([a-z_, ]*)\) )?\((?:delta\()?$")
# With every service loaded, every metric is there.
SERVICES = (build_gateway, build_payments, build_webhooks, build_fulfillment, build_reconciler)


def _ours() -> dict[str, MetricWrapperBase]:
    known = {each for each in REGISTRY._collector_to_names if isinstance(each, MetricWrapperBase)}
    return {each._name: each for each in known if each._name.startswith("tender_")}


def _expressions() -> list[tuple[str, str]]:
    dashboard = msgspec.json.decode((MONITORING / "dashboard.json").read_bytes())
    panels = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return [*panels, *((rule["alert"], rule["expr"]) for rule in _rules())]


def _rules() -> list[Any]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_metrics_are_named_by_convention() -> None:
    assert len(SERVICES) == 5
    units = ("_seconds", "_bytes", "_ratio")
    for name, metric in _ours().items():
        kind = metric._type
        assert metric._documentation.endswith("."), name
        assert kind in ("counter", "gauge", "histogram"), name
        assert kind != "histogram" or name.endswith(units), f"{name} does not say its unit"
        assert not name.endswith(("_total", "_count", "_sum", "_bucket", "_ms", "_milliseconds")), f"{name} ends as its kind does"


@pytest.mark.parametrize(("where", "expression"), _expressions())
def test_nothing_is_asked_for_that_is_not_there(where: str, expression: str) -> None:
    shown, ours = telemetry.shown_metrics(), _ours()

    asked = METRIC.findall(expression)
    names = [name if name in shown else ENDINGS.sub("", name) for name in asked]
    known = {"le", "job", *(label for name in names if name in ours for label in ours[name]._labelnames)}
    labels = {label.strip() for by, _ in LABELS.findall(expression) for label in by.split(",") if label.strip()}
    matched = {pair.split("=")[0].rstrip("!~ ") for _, given in LABELS.findall(expression) for pair in given.split(",") if pair}

    assert asked or expression.startswith("up{"), where
    assert [name for name in names if name not in shown] == []
    assert (labels | matched) - known == set()


@pytest.mark.parametrize(("where", "expression"), _expressions())
def test_replicas_are_added_up_where_each_counts_its_own(where: str, expression: str) -> None:
    ours = _ours()

    for asked in METRIC.finditer(expression):
        metric = ours[asked[1] if asked[1] in ours else ENDINGS.sub("", asked[1])]
        before = expression[: asked.start()]
        if metric._type != "gauge":
            assert OWN_SUMMED.search(before), f"{where}: {asked[1]} is counted by each replica for itself"
            continue
        # Each replica counts the whole, under all of its labels; of ages the largest is wanted anyhow.
        found = WHOLE_ONCE.search(before)
        assert found, f"{where}: {asked[1]} is counted by every replica, as a whole"
        by = {label.strip() for label in (found[1] or "").split(",")} - {""}
        assert by == set(metric._labelnames) or asked[1].endswith("_seconds"), f"{where}: {asked[1]}"


def test_every_alert_says_what_and_where_to_look() -> None:
    rules = _rules()

    assert len({rule["alert"] for rule in rules}) == len(rules) > 10
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket"), rule
        assert rule["annotations"]["summary"], rule
        assert (ROOT / Path(rule["annotations"]["runbook"])).is_file(), rule


def test_every_metric_is_drawn_or_alerted_on() -> None:
    asked_for = str([expression for _, expression in _expressions()])

    assert [name for name in _ours() if name not in asked_for] == []
