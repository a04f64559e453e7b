"""Credentials of providers: taken in, sealed at once for the service that uses them, and never shown again."""

from typing import Annotated, Any

import msgspec
from litestar import Response, delete, get, post, put
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from services.gateway.routes.answers import ADMIN, JSON_TYPE, READ, RETRY, ask, carry_out, documented, gateway_of, principal_of
from shared.contracts.credentials import (
    KINDS,
    OWNERS,
    TOLD,
    CredentialsView,
    CredentialView,
    Use,
    VerifiedView,
    place_of,
)
from shared.errors import Invalid, NotFound
from shared.received import HttpRequest

FIELDS_MAX = 10
FieldName = Annotated[str, Meta(pattern="^[a-z_]+$", max_length=60)]
FieldValue = Annotated[str, Meta(min_length=1, max_length=4096)]
ProviderName = FromPath[str]


class CredentialBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the provider gave, by its fields' names; for what, where the provider is used for more than one thing."""

    fields: Annotated[dict[FieldName, FieldValue], Meta(min_length=1, max_length=FIELDS_MAX)]
    use: Use | None = None


class UseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """For what it is used, where the provider is used for more than one thing."""

    use: Use | None = None


def _use(provider: str, use: Use | None) -> Use:
    """Tell what a provider's credential is for; what it signs webhooks with is only meant when it is named."""
    known = [each for each, name in KINDS if name == provider]
    if not known:
        raise NotFound(f"There is no provider {provider!r} that needs credentials.")
    meant = [each for each in known if each is not Use.WEBHOOKS] if use is None else [use]
    if len(meant) != 1 or meant[0] not in known:
        raise Invalid(f"Say what it is for (use): {', '.join(known)}.", {"field": "use", "uses": [each.value for each in known]})
    return meant[0]


@put(
    "/admin/providers/{provider:str}/credentials",
    before_request=ADMIN,
    tags=["Credentials"],
    summary="Give a provider's credential; the one before stays active beside it",
    responses=documented(200, CredentialView, "The credential, without its secret."),
)
async def put_credential(request: HttpRequest, provider: ProviderName, data: JSONBody[CredentialBody]) -> Response[Any]:
    use, principal = _use(provider, data.use), principal_of(request)
    place = place_of(principal.store_id, principal.environment.value, provider, use.value)
    sealed = gateway_of(request).seal(OWNERS[use], msgspec.json.encode(data.fields), info=place)
    return await carry_out(request, lambda _: TOLD[OWNERS[use]].put(provider=provider, use=use, sealed=sealed), data=data)


@get(
    "/admin/providers/{provider:str}/credentials",
    before_request=READ,
    tags=["Credentials"],
    summary="Read which credentials of a provider there are",
    responses=documented(200, CredentialsView, "What each is for, its fingerprint, version and dates; never the secret.", keyed=False),
)
async def read_credentials(request: HttpRequest, provider: ProviderName) -> Response[Any]:
    owners = sorted({OWNERS[use] for use, name in KINDS if name == provider})
    if not owners:
        raise NotFound(f"There is no provider {provider!r} that needs credentials.")
    answers = [msgspec.json.decode(await ask(request, TOLD[owner].list(provider=provider)), type=CredentialsView) for owner in owners]
    view = CredentialsView(credentials=[each for answer in answers for each in answer.credentials])
    return Response(msgspec.json.encode(view), media_type=JSON_TYPE)


@delete(
    "/admin/providers/{provider:str}/credentials",
    before_request=ADMIN,
    status_code=200,
    tags=["Credentials"],
    summary="Use a credential no more: one version, or all of them",
    responses=documented(200, CredentialsView, "The credentials as they are now."),
)
async def retire_credential(
    request: HttpRequest,
    provider: ProviderName,
    use: Annotated[Use | None, QueryParameter(name="use", required=False)] = None,
    version: Annotated[int | None, QueryParameter(name="version", ge=1, required=False)] = None,
) -> Response[Any]:
    meant = _use(provider, use)
    told = TOLD[OWNERS[meant]]
    which = (meant.value, "all" if version is None else str(version))
    return await carry_out(request, lambda _: told.retire(provider=provider, use=meant, version=version), headers=which)


@post(
    "/admin/providers/{provider:str}/credentials/verify",
    before_request=RETRY,
    status_code=200,
    tags=["Credentials"],
    summary="Try the newest credential by a call that changes nothing",
    responses=documented(200, VerifiedView, "Accepted, rejected, or unanswered."),
)
async def verify_credential(request: HttpRequest, provider: ProviderName, data: JSONBody[UseBody]) -> Response[Any]:
    use = _use(provider, data.use)
    return await carry_out(request, lambda _: TOLD[OWNERS[use]].verify(provider=provider, use=use), data=data)


ROUTES = [put_credential, read_credentials, retire_credential, verify_credential]
