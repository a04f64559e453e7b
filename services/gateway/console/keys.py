"""Keys of this store, credentials of its providers, and the addresses that are told of what happens."""

import asyncio
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.console.pages import ADMIN, RETRY, Facts, Flash, act, asked_for, form_of, page, read, signed_in
from services.gateway.domain import Access
from services.gateway.handlers.commands import RevokeKey
from services.gateway.routes.answers import gateway_of, principal_of
from services.gateway.routes.credentials import CredentialBody
from services.gateway.routes.merchants import EndpointBody, RecoverBody, put_endpoint
from services.gateway.store import sessions
from shared.contracts.credentials import KINDS, OWNERS, TOLD, CredentialsView, CredentialView, Use, VerifiedView, place_of
from shared.contracts.webhooks import (
    DeleteEndpoint,
    DeliveryPage,
    EndpointsView,
    ListDeliveries,
    ListEndpoints,
    RecoverDeliveries,
    RecoveryView,
    Redeliver,
    RotateSecret,
)
from shared.ids import new_id
from shared.received import HttpRequest

HERE = "/console/keys"
DELIVERIES_SHOWN = 10


@get("/keys", before_request=signed_in)
async def show_keys(
    request: HttpRequest,
    deliveries: Annotated[str, QueryParameter(name="deliveries", max_length=40, required=False)] = "",
) -> Response[Any]:
    async def load() -> Facts:
        owned = sorted({(OWNERS[use], provider) for use, provider in KINDS})
        asked = (asked_for(request, TOLD[service].list(provider=provider), CredentialsView) for service, provider in owned)
        told = await asyncio.gather(*asked)
        credentials: list[CredentialView] = [each for said in told if said is not None for each in said.credentials]
        principal = principal_of(request)
        return {
            "keys": await sessions.keys_of(gateway_of(request).pool, principal) if principal.may(Access.ADMIN) else [],
            "credentials": sorted(credentials, key=lambda each: (each.provider, each.use, -each.version)),
            "missing": sorted({service for (service, _), said in zip(owned, told, strict=True) if said is None}),
            "kinds": [
                {"provider": provider, "use": use.value, "needed": kind.needed, "optional": kind.optional}
                for (use, provider), kind in KINDS.items()
            ],
            "endpoints": await asked_for(request, ListEndpoints(), EndpointsView),
            "deliveries": await asked_for(request, ListDeliveries(status=deliveries or None, limit=DELIVERIES_SHOWN), DeliveryPage),
        }

    return await page(request, "keys.html", load)


@post("/keys/{key_id:uuid}/revoke", before_request=ADMIN)
async def revoke_key(request: HttpRequest, key_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    return await act(request, form, RevokeKey(key_id=key_id), done="The key opens nothing any more.", back=HERE)


@post("/keys/credentials/{provider:str}/{use:str}", before_request=ADMIN)
async def put_credential(request: HttpRequest, provider: FromPath[str], use: FromPath[str]) -> Response[Any]:
    form = await form_of(request)
    meant, principal = msgspec.convert(use, Use), principal_of(request)
    fields = {name.removeprefix("field_"): value for name, value in form.items() if name.startswith("field_") and value}
    body = msgspec.convert({"fields": fields, "use": meant}, CredentialBody)
    place = place_of(principal.store_id, principal.environment.value, provider, meant.value)
    sealed = gateway_of(request).seal(OWNERS[meant], msgspec.json.encode(body.fields), info=place)
    command = TOLD[OWNERS[meant]].put(provider=provider, use=meant, sealed=sealed)
    return await act(request, form, command, done="The credential is kept, sealed; the one before stays active beside it.", back=HERE)


@post("/keys/credentials/{provider:str}/{use:str}/verify", before_request=RETRY)
async def verify_credential(request: HttpRequest, provider: FromPath[str], use: FromPath[str]) -> Response[Any]:
    form, meant = await form_of(request), msgspec.convert(use, Use)
    command = TOLD[OWNERS[meant]].verify(provider=provider, use=meant)
    return await act(request, form, command, done=_tried, back=HERE)


def _tried(answer: bytes) -> Flash:
    said = msgspec.json.decode(answer, type=VerifiedView)
    return Flash(good=said.result == "accepted", text=f"{said.provider} {said.result} it. {said.detail}".strip())


@post("/keys/credentials/{provider:str}/{use:str}/retire/{version:int}", before_request=ADMIN)
async def retire_credential(request: HttpRequest, provider: FromPath[str], use: FromPath[str], version: FromPath[int]) -> Response[Any]:
    form, meant = await form_of(request), msgspec.convert(use, Use)
    command = TOLD[OWNERS[meant]].retire(provider=provider, use=meant, version=version)
    return await act(request, form, command, done=f"Version {version} is used no more.", back=HERE)


@post("/keys/endpoints", before_request=ADMIN)
async def make_endpoint(request: HttpRequest) -> Response[Any]:
    form = await form_of(request)
    body = read(form, EndpointBody, event_types=form.get("event_types", "").split())
    command = put_endpoint(request, new_id(), body, change=False)
    return await act(request, form, command, done="The address will be told.", back=HERE)


@post("/keys/endpoints/{endpoint_id:uuid}/enable", before_request=ADMIN)
async def enable_endpoint(request: HttpRequest, endpoint_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    body = read(form, EndpointBody, event_types=form.get("event_types", "").split(), enabled=form.get("enabled") == "true")
    command = put_endpoint(request, endpoint_id, body, change=True)
    done = "The address is told again." if body.enabled else "The address is told no more."
    return await act(request, form, command, done=done, back=HERE)


@post("/keys/endpoints/{endpoint_id:uuid}/rotate", before_request=ADMIN)
async def rotate_secret(request: HttpRequest, endpoint_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    done = "Deliveries bear two signatures now; read the new secret over the API."
    return await act(request, form, RotateSecret(endpoint_id=endpoint_id), done=done, back=HERE)


@post("/keys/endpoints/{endpoint_id:uuid}/recover", before_request=RETRY)
async def recover_deliveries(request: HttpRequest, endpoint_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    body = read(form, RecoverBody, since=f"{form.get('since', '')}:00Z")
    return await act(request, form, RecoverDeliveries(endpoint_id=endpoint_id, since=body.since), done=_recovered, back=HERE)


def _recovered(answer: bytes) -> Flash:
    recovery = msgspec.json.decode(answer, type=RecoveryView)
    return Flash(good=True, text=f"{recovery.count} events are being delivered{'; there are more since then' if recovery.more else ''}.")


@post("/keys/endpoints/{endpoint_id:uuid}/delete", before_request=ADMIN)
async def delete_endpoint(request: HttpRequest, endpoint_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    return await act(request, form, DeleteEndpoint(endpoint_id=endpoint_id), done="The address is forgotten.", back=HERE)


@post("/keys/deliveries/{delivery_id:uuid}/redeliver", before_request=RETRY)
async def redeliver(request: HttpRequest, delivery_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    return await act(request, form, Redeliver(delivery_id=delivery_id), done="It is delivered again.", back=HERE)


ROUTES = [
    show_keys,
    revoke_key,
    put_credential,
    verify_credential,
    retire_credential,
    make_endpoint,
    enable_endpoint,
    rotate_secret,
    recover_deliveries,
    delete_endpoint,
    redeliver,
]
