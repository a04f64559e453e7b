"""The gateway at work: who calls, how operations are driven, and what the services are asked."""

import asyncio
import hmac
import time
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import msgspec

from services.gateway import store
from services.gateway.domain import (
    Bucket,
    Claims,
    Forbidden,
    Overloaded,
    OwnKey,
    Principal,
    Role,
    Unauthenticated,
    draw,
    is_token,
    key_parts,
    read_token,
    secret_hash,
    sign,
    unsigned_token,
)
from services.gateway.handlers.commands import (
    SUCCESS_STATUS,
    TOKEN_TYPES,
    MakeCheckoutToken,
    MakeCustomerToken,
    RevokeKey,
    SubmitPayment,
    SubmitResult,
    TokenView,
)
from services.gateway.handlers.idempotency import Answer, Driver, IdempotencyStore, Interim
from services.gateway.handlers.ingest import Ingest
from services.gateway.handlers.live_pages import LivePages
from services.gateway.handlers.places import TOKEN_ROLES, Places
from services.gateway.handlers.sign_ins import SignIns
from services.gateway.settings import Settings
from services.gateway.store import Claim, Kept, sessions
from shared import audit, telemetry
from shared.bus import LOST, Unroutable
from shared.contracts import payments
from shared.errors import NotFound, Problem, Refusal, Unavailable
from shared.ids import new_id
from shared.messages import Done, Envelope, Environment, Message, Query, Refused, Reply, SecretQuery, done, encode, type_of
from shared.rations import Ration
from shared.replies import Replies
from shared.sealing import Sealing
from shared.service import BROKER_CHECK_TIMEOUT_SECONDS
from shared.work import Desk

# How long a key that was read opens this gateway without being read again, so for how long at most one opens it that was revoked at
# another gateway: longer would let a stolen key in for longer, shorter saves nothing where a key is used often.
KEY_CACHE_SECONDS = 1.0
KEY_CACHE_ROWS_MAX = 10_000
# How long a request waits for whether its span may have a parent, when the database is slow; its own authentication waits longer.
AUTHENTIC_TIMEOUT_SECONDS = 2.0
# Every shopper's token has a bucket; forgetting them all at once forgives a burst, no more.
BUCKETS_MAX = 100_000
# Rows of the audit that failing to sign in at the console leaves in one gateway process.
FAILED_SIGN_INS_MAX = 60
FAILED_SIGN_INS_SECONDS = 60.0
# As payments calls a payment whose customer must act first, and one whose money is held.
REQUIRES_ACTION, AUTHORIZED = "requires_action", "authorized"
PAYING_STEPS = frozenset({type_of(payments.Authorize), type_of(payments.Confirm)})


class Gateway:
    """What the routes work with."""

    def __init__(self, *, desk: Desk, settings: Settings, replies: Replies) -> None:
        self.settings = settings
        self.places = Places(settings)
        self.live_pages = LivePages()
        self.sign_ins = SignIns(settings)
        # Anybody can fail to sign in; what they cause to be written has a limit, however often they try.
        self.failed_sign_ins = Ration(FAILED_SIGN_INS_MAX, seconds=FAILED_SIGN_INS_SECONDS)
        self.pool = desk.pool
        self.replies = replies
        self._publisher = desk.publisher
        self.ingest = Ingest(settings.webhooks_url)
        self.pulse = desk.pulse
        # Set when the service stops: whoever holds a connection open lets go.
        self.closing = asyncio.Event()
        self._sealing = Sealing(settings.key_source)
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._buckets: dict[str, Bucket] = {}
        own = self._own_drivers()
        over_the_bus: dict[str, Driver] = dict.fromkeys(SUCCESS_STATUS.keys() - own.keys(), self._over_the_bus)
        self.idempotency = IdempotencyStore(desk.pool, {**over_the_bus, **own}, self._resend, settings, told_again=over_the_bus)

    # Who calls

    async def authenticate(self, authorization: str | None) -> Principal:
        """Tell who calls from the Authorization header, and count the call against their rate."""
        principal = await self._principal_of(authorization)
        self.count(principal)
        return principal

    async def is_authentic(self, authorization: str | None) -> bool:
        """Tell whether an Authorization header is a caller's of ours, as far as that is read in time; the call is not counted."""
        try:
            async with asyncio.timeout(AUTHENTIC_TIMEOUT_SECONDS):
                await self._principal_of(authorization)
        except (Refusal, Unavailable, TimeoutError):
            return False
        return True

    async def _principal_of(self, authorization: str | None) -> Principal:
        scheme, _, credential = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not credential:
            raise Unauthenticated("Send 'Authorization: Bearer <key or token>'.")
        principal = self._bearer_of(credential) or await self._owner_of(credential)
        if self.settings.sandbox_only and principal.environment is not Environment.SANDBOX:
            raise Forbidden("This installation serves nothing but the sandbox environment.", {"environment": principal.environment.value})
        return principal

    def count(self, principal: Principal) -> None:
        """Count a call against a caller's rate; refuses when it is over it."""
        if telemetry.tracing():
            telemetry.mark({"store_id": str(principal.store_id), "environment": principal.environment.value})
        if len(self._buckets) >= BUCKETS_MAX:
            self._buckets.clear()
        settings, of_token = self.settings, principal.role in TOKEN_ROLES
        self._buckets[principal.id] = draw(
            self._buckets.get(principal.id),
            now_seconds=time.monotonic(),
            rate_per_second=settings.token_rate_per_second if of_token else settings.rate_per_second,
            burst=settings.token_rate_burst if of_token else settings.rate_burst,
        )

    def _bearer_of(self, token: str) -> Principal | None:
        if not is_token(token):
            return None
        now, before = datetime.now(UTC), self.settings.token_secret_before
        return read_token(token, self.settings.token_secret, now) or (read_token(token, before, now) if before else None)

    def seal(self, service: str, plain: bytes, *, info: str) -> str:
        """Seal something for a service that alone can open it."""
        return self._sealing.seal(service, plain, info=info)

    def hide(self, service: str, plain: str, *, info: str) -> str:
        """Wrap something personal for a service that alone can open it."""
        return self._sealing.hide(service, plain, info=info)

    async def _owner_of(self, credential: str) -> Principal:
        fingerprint = sha256(credential.encode()).digest()
        principal, until = self._known.get(fingerprint, (None, 0.0))
        if principal is not None and until > time.monotonic():
            return principal
        # Counted from before it is read: it may be revoked while the database answers.
        read_at_seconds = time.monotonic()
        parts = key_parts(credential)
        found = None if parts is None else await store.api_key(self.pool, parts.id)
        if (
            parts is None
            or found is None
            or not hmac.compare_digest(found[1], secret_hash(parts.secret))
            or found[0].environment is not parts.environment
        ):
            raise Unauthenticated("This key or token is not valid, or no longer.")
        if len(self._known) >= KEY_CACHE_ROWS_MAX:
            self._known.clear()
        self._known[fingerprint] = (found[0], read_at_seconds + KEY_CACHE_SECONDS)
        return found[0]

    # Commands

    def admit(self) -> None:
        """Refuse work before a key is claimed when its reply could not arrive."""
        if self.replies.trouble is not None:
            raise Overloaded("The message broker cannot be reached.", {})

    async def reach_broker(self) -> None:
        """Refuse work before a key is claimed when it could not be sent on; a lost connection is opened again first, as readiness does."""
        if self._publisher.trouble is None:
            return
        try:
            await asyncio.wait_for(self._publisher.reopen(), BROKER_CHECK_TIMEOUT_SECONDS)
        except LOST as lost:
            raise Overloaded("The message broker cannot be reached.", {}) from lost

    def _own_drivers(self) -> dict[str, Driver]:
        return {
            type_of(kind): self._audited(kind, driver)
            for kind, driver in (
                (SubmitPayment, self._submit_payment),
                (MakeCheckoutToken, self._make_checkout_token),
                (MakeCustomerToken, self._make_customer_token),
                (RevokeKey, self._revoke_key),
            )
        }

    def _audited(self, kind: type[Message], driver: Driver) -> Driver:
        """Wrap a driver so that the audit has a row of what staff requested once it has ended, before its answer goes out."""

        async def audited(kept: Kept) -> Reply | Interim | None:
            command = msgspec.json.decode(kept.command or b"", type=kind)
            reply = await driver(kept)
            ended = isinstance(reply, Done) or (isinstance(reply, Refused) and reply.problem.definitive)
            if ended and audit.by_staff(_envelope(kept), kept.command_type):
                after = audit.refused(reply.problem.code) if isinstance(reply, Refused) else None
                await audit.insert_action(self.pool, _envelope(kept), kept.command_type, audit.subject_of(command), after=after)
            return reply

        return audited

    async def _over_the_bus(self, kept: Kept) -> Reply | None:
        future = self.replies.expect(kept.operation_id)
        await self._send(kept)
        try:
            return await self.replies.wait(future, timeout_seconds=self.settings.drive_timeout_seconds)
        except Unavailable:
            return None

    async def _send(self, kept: Kept) -> None:
        assert kept.command is not None, "an unfinished operation holds its command"
        try:
            await self.replies.send(_envelope(kept), kept.command_type, kept.command)
        except Unroutable as missing:
            raise Unavailable(str(missing)) from missing

    async def _resend(self, kept: Kept) -> None:
        if self.replies.expected(kept.operation_id):
            await self._send(kept)

    # Queries

    async def ask(self, principal: Principal, query: Query, *, correlation_id: str, timeout_seconds: float | None = None) -> Reply:
        """Ask a service for something to show."""
        envelope = self.envelope_for(principal, correlation_id=correlation_id)
        return await self.ask_as(envelope, query, timeout_seconds=timeout_seconds or self.settings.query_timeout_seconds)

    def envelope_for(self, principal: Principal, *, correlation_id: str) -> Envelope:
        """Say on whose behalf something is asked."""
        return Envelope(
            id=new_id(),
            store_id=principal.store_id,
            environment=principal.environment,
            source="gateway",
            actor=principal.actor,
            correlation_id=correlation_id,
            traceparent=telemetry.traceparent(),
        )

    async def ask_as(self, envelope: Envelope, query: Query, *, timeout_seconds: float) -> Reply:
        """Ask a service on behalf of the envelope's actor; a query for a secret is in the audit before it is sent."""
        if isinstance(query, SecretQuery):
            await audit.insert_action(self.pool, envelope, type_of(type(query)), audit.subject_of(query))
        try:
            return await self.replies.ask(envelope, query, timeout_seconds=timeout_seconds)
        except Unroutable as missing:
            raise Unavailable(str(missing)) from missing

    async def look(self, operation_id: UUID) -> tuple[Kept, list[Kept]] | None:
        """Read an operation and its steps."""
        found = await self.idempotency.look(operation_id)
        return None if found is None else (found, await store.steps_of(self.pool, operation_id))

    # Tokens

    async def _make_checkout_token(self, kept: Kept) -> Reply | None:
        command = msgspec.json.decode(kept.command or b"", type=MakeCheckoutToken)
        asking = msgspec.structs.replace(_envelope(kept), id=new_id())
        order = await self.ask_as(asking, payments.GetOrder(order_id=command.order_id), timeout_seconds=self.settings.query_timeout_seconds)
        if isinstance(order, Refused):
            return order
        return self._token(kept, Role.SHOPPER, order_id=command.order_id, customer_id=None)

    async def _make_customer_token(self, kept: Kept) -> Reply | None:
        command = msgspec.json.decode(kept.command or b"", type=MakeCustomerToken)
        return self._token(kept, Role.CUSTOMER, order_id=None, customer_id=command.customer_id)

    def _token(self, kept: Kept, role: Role, *, order_id: UUID | None, customer_id: UUID | None) -> Reply:
        shopper = role is Role.SHOPPER
        lifetime = self.settings.checkout_token_lifetime_seconds if shopper else self.settings.customer_token_lifetime_seconds
        # From the claim's time, so that driving it again makes the same token.
        expires_at = kept.created_at + timedelta(seconds=lifetime)
        claims = Claims(
            id=kept.operation_id,
            store_id=kept.store_id,
            environment=kept.environment,
            role=role,
            expires_at=expires_at,
            order_id=order_id,
            customer_id=customer_id,
        )
        return done(
            TokenView(
                token=unsigned_token(claims),
                expires_at=expires_at,
                environment=kept.environment,
                order_id=order_id,
                customer_id=customer_id,
            )
        )

    def revealed(self, command_type: str, status: int, body: bytes) -> bytes:
        """Complete an answer that is stored without its signature."""
        if command_type not in TOKEN_TYPES or status != 201:
            return body
        view = msgspec.json.decode(body, type=TokenView)
        return msgspec.json.encode(msgspec.structs.replace(view, token=sign(view.token, self.settings.token_secret)))

    # Keys

    async def _revoke_key(self, kept: Kept) -> Reply | None:
        command = msgspec.json.decode(kept.command or b"", type=RevokeKey)
        if kept.actor.endswith(f":{command.key_id}"):
            return Refused(OwnKey("Use another key to revoke this one.", {"key_id": str(command.key_id)}).problem())
        revoked = await sessions.revoke(self.pool, _envelope(kept), command.key_id)
        if revoked is None:
            return Refused(NotFound(f"There is no key {command.key_id}.").problem())
        self._known.clear()
        return done(revoked)

    # The composed operation

    async def _submit_payment(self, kept: Kept) -> Reply | Interim | None:
        command = msgspec.json.decode(kept.command or b"", type=SubmitPayment)
        steps: dict[str, UUID] = {}
        snapshot_id = command.snapshot_id
        if snapshot_id is None:
            quoted = await self._step(kept, steps, "quote", payments.Quote(order_id=command.order_id))
            if not quoted.definitive or quoted.status >= 400:
                return _passed_on(quoted)
            snapshot_id = msgspec.json.decode(quoted.body or b"", type=_Snapshot).snapshot_id
        authorize = payments.Authorize(
            order_id=command.order_id,
            snapshot_id=snapshot_id,
            idempotency_key=_step_key(kept, "authorize"),
            payment_method=command.payment_method,
            amount=command.amount,
            currency=command.currency,
            return_url=command.return_url,
            capture=True,
        )
        authorized = await self._step(kept, steps, "authorize", authorize)
        if not authorized.definitive or authorized.status >= 400:
            return await self._refused(kept, steps, authorized)
        payment = msgspec.json.decode(authorized.body or b"", type=payments.PaymentView)
        if payment.intent.status == REQUIRES_ACTION and authorized.replayed:
            # Whoever submits it again may have been to the bank; payments goes on to the capture.
            confirmed = await self._confirm(kept, steps, command.order_id, payment.intent.id)
            if not confirmed.definitive or confirmed.status >= 400:
                return await self._refused(kept, steps, confirmed)
            payment = msgspec.json.decode(confirmed.body or b"", type=payments.PaymentView)
        if payment.intent.status == REQUIRES_ACTION:
            return Interim(msgspec.json.encode(_result(payment, steps)))
        if payment.intent.status != AUTHORIZED:
            return done(_result(payment, steps))
        capture = payments.Capture(order_id=command.order_id, intent_id=payment.intent.id, idempotency_key=_step_key(kept, "capture"))
        captured = await self._step(kept, steps, "capture", capture)
        if not captured.definitive:
            return None
        return done(_submitted(payment, captured, steps))

    async def _confirm(self, kept: Kept, steps: dict[str, UUID], order_id: UUID, intent_id: UUID) -> Answer:
        confirm = payments.Confirm(order_id=order_id, intent_id=intent_id, idempotency_key=_step_key(kept, "confirm"))
        return await self._step(kept, steps, "confirm", confirm, key=f"confirm {new_id()}")

    async def _refused(self, kept: Kept, steps: dict[str, UUID], refused: Answer) -> Reply | None:
        """A step's refusal is the whole's, unless it was the capture that payments went on to: the money is held all the same."""
        held = _Held() if refused.body is None or not refused.definitive else msgspec.json.decode(refused.body, type=_Held)
        if held.intent_status != AUTHORIZED or held.intent_id is None:
            return _passed_on(refused)
        command = msgspec.json.decode(kept.command or b"", type=SubmitPayment)
        stands = await self._confirm(kept, steps, command.order_id, held.intent_id)
        if not stands.definitive or stands.status >= 400:
            return _passed_on(stands)
        return done(_submitted(msgspec.json.decode(stands.body or b"", type=payments.PaymentView), refused, steps))

    def interim(self, kept: Kept, steps: list[Kept]) -> bytes | None:
        """Tell a submitted payment whose customer must act, which is not the end of its operation."""
        last = steps[-1] if steps else None
        if kept.completed or last is None or last.response_code not in (200, 201) or last.command_type not in PAYING_STEPS:
            return None
        payment = msgspec.json.decode(self.idempotency.body_of(last) or b"", type=payments.PaymentView)
        named = {step.command_type.split(".")[1]: step.operation_id for step in steps}
        return msgspec.json.encode(_result(payment, named)) if payment.intent.status == REQUIRES_ACTION else None

    async def _step(self, parent: Kept, steps: dict[str, UUID], name: str, command: Message, *, key: str = "") -> Answer:
        body = encode(command)
        claim = Claim(
            scope=f"operation:{parent.operation_id}",
            key=key or name,
            # A driven-on parent may send a step whose bytes differ (another snapshot id cannot be, another release can).
            request_hash=sha256(f"{parent.operation_id}:{name}".encode()).digest(),
            command_type=type_of(type(command)),
            command=body,
            store_id=parent.store_id,
            environment=parent.environment,
            actor=parent.actor,
            correlation_id=parent.correlation_id,
            traceparent=parent.traceparent,
            parent_id=parent.operation_id,
        )
        answer = await self.idempotency.execute(claim, wait_seconds=self.settings.drive_timeout_seconds)
        steps[name] = answer.operation_id
        return answer


class _Snapshot(msgspec.Struct):
    snapshot_id: UUID


class _Held(msgspec.Struct):
    """What a refusal says of the payment that it is about."""

    intent_id: UUID | None = None
    intent_status: str = ""


def _envelope(kept: Kept) -> Envelope:
    return Envelope(
        id=kept.operation_id,
        store_id=kept.store_id,
        environment=kept.environment,
        source="gateway",
        actor=kept.actor,
        correlation_id=kept.correlation_id,
        traceparent=kept.traceparent,
    )


def _step_key(parent: Kept, name: str) -> str:
    return f"operation:{parent.operation_id}:{name}"


def _passed_on(answer: Answer) -> Reply | None:
    """A step's refusal is the whole's refusal; a step still under way keeps the whole under way."""
    if not answer.definitive or answer.body is None:
        return None
    known: dict[str, Any] = msgspec.json.decode(answer.body)
    fields = {f.name for f in msgspec.structs.fields(Problem)}
    said = {key: value for key, value in known.items() if key in fields}
    facts = {k: v for k, v in known.items() if k not in fields and k not in ("type", "correlation_id", "retry_after")}
    return Refused(msgspec.convert({**said, "facts": facts}, Problem))


def _submitted(payment: payments.PaymentView, captured: Answer, steps: dict[str, UUID]) -> SubmitResult:
    if captured.status >= 400:
        problem = msgspec.json.decode(captured.body or b"{}")
        return SubmitResult(result="authorized_not_captured", intent=payment.intent, operations=steps, capture_problem=problem)
    return _result(msgspec.json.decode(captured.body or b"", type=payments.PaymentView), steps)


def _result(payment: payments.PaymentView, steps: dict[str, UUID]) -> SubmitResult:
    return SubmitResult(result=payment.intent.status, intent=payment.intent, operations=steps)


def unwrap(reply: Reply) -> bytes | Problem:
    """Take a reply apart: what to show, or why not."""
    return bytes(reply.body) if isinstance(reply, Done) else reply.problem
