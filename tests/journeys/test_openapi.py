"""Every operation of the served OpenAPI document, called with whatever fits it and what does not: never a 5xx, never undocumented."""

import asyncio
import time
from collections.abc import AsyncIterator
from http.client import SERVICE_UNAVAILABLE
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import schemas as _  # noqa: F401  # Else it is parsed in the middle of a test (python/cpython#106905).
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance, status_code_conformance

from services.gateway.domain import Role
from tests.world import Place, World, a_world


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, webhooks={}, fulfillment={}, reconciler={}) as made:
        yield made


EXAMPLES = {"operator": 10, "checkout": 4, "nobody": 4}
DOCUMENTED = [status_code_conformance, content_type_conformance, response_schema_conformance]
CHECKS = [not_a_server_error, *DOCUMENTED]
BUSY_ANSWERS_MAX = 30


@pytest.mark.parametrize("caller", list(EXAMPLES))
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["what fits", "what does not"])
async def test_no_call_is_answered_otherwise_than_documented(world: World, caller: str, mode: GenerationMode) -> None:
    document = (await world.http.get("/openapi/openapi.json")).json()
    # No wait: what is taken up may end later, which is documented as well.
    headers = {"Prefer": "wait=1"}
    if caller != "nobody":
        headers["Authorization"] = f"Bearer {world.keys[Role(caller)]}"

    called = await asyncio.to_thread(_call_everything, document, world.gateway_url, headers, mode, EXAMPLES[caller])

    assert called >= len(document["paths"])


async def test_the_documentation_is_the_same_for_all_who_ask_at_once(world: World) -> None:
    paths = ["/openapi", "/openapi/openapi.json", "/docs"]

    answers = await asyncio.gather(*(world.http.get(path) for path in paths * 4))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 2
    assert [answer.headers["Content-Type"].split(";")[0] for answer in answers[:3]] == [
        "application/vnd.oai.openapi+json",
        "application/vnd.oai.openapi+json",
        "text/html",
    ]
    assert (await world.http.get("/openapi/nothing")).status_code == 404


def _call_everything(document: Any, url: str, headers: dict[str, str], mode: GenerationMode, examples: int) -> int:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=url)
    called = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok), "the served document is valid"
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not (operation.body or operation.headers or operation.query):
            continue

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def call(case: Any) -> None:
            nonlocal called
            called += 1
            response = case.call(headers=headers)
            # On a loaded machine a service may answer too late: a 503 is documented too, and says when to come again.
            for _attempt in range(BUSY_ANSWERS_MAX):
                if response.status_code != SERVICE_UNAVAILABLE:
                    break
                case.validate_response(response, checks=DOCUMENTED)
                time.sleep(float(response.headers["retry-after"][0]))
                response = case.call(headers=headers)
            case.validate_response(response, checks=CHECKS)

        call()
    return called
