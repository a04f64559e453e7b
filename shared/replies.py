"""Waiting for replies: one exclusive queue per process, one future per operation; a reply is only a wake-up."""

import asyncio
import uuid
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec

from shared import telemetry, topology
from shared.bus import Consumer, Letter, Publisher, Received, headers_of
from shared.errors import Unavailable
from shared.messages import Envelope, Query, Reply, decode_reply, encode, type_of

REPLY_PREFETCH = 256


class Replies:
    """Receives replies for this process and wakes whoever waits for them."""

    def __init__(self, url: str, publisher: Publisher, *, name: str) -> None:
        self.queue = topology.reply_queue(name, uuid.uuid4().hex)
        self._publisher = publisher
        self._waiting: dict[uuid.UUID, asyncio.Future[Reply]] = {}
        self._consumer = Consumer(
            url, [self.queue], self._receive, name=f"{name} replies", prefetch=REPLY_PREFETCH, reply_exchange=topology.reply_exchange(name)
        )

    async def __aenter__(self) -> "Replies":
        await self._consumer.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.__aexit__()

    @property
    def trouble(self) -> str | None:
        """What keeps replies from arriving, if anything."""
        return self._consumer.trouble

    def expect(self, operation_id: uuid.UUID) -> "asyncio.Future[Reply]":
        """Register for a reply before the command is sent; the same operation shares one future."""
        future = self._waiting.get(operation_id)
        if future is None or future.done():
            future = asyncio.get_running_loop().create_future()
            self._waiting[operation_id] = future
            future.add_done_callback(lambda _: self._waiting.pop(operation_id, None))
        return future

    def expected(self, operation_id: uuid.UUID) -> bool:
        """Whether somebody in this process waits for the operation."""
        return operation_id in self._waiting

    async def wait(self, future: "asyncio.Future[Reply]", *, timeout_seconds: float) -> Reply:
        """Wait for an expected reply; silence is Unavailable, and others may go on waiting."""
        done, _ = await asyncio.wait({future}, timeout=timeout_seconds)
        if not done or future.cancelled():
            future.cancel()
            raise Unavailable(f"no reply in {timeout_seconds} s")
        return future.result()

    async def send(self, envelope: Envelope, kind: str, body: bytes) -> None:
        """Send a command whose reply comes back here; confirmed when this returns."""
        await self._publisher.publish(self._letter(envelope, kind, body, persistent=True))

    async def ask(self, envelope: Envelope, query: Query, *, timeout_seconds: float) -> Reply:
        """Ask a question and wait for the answer; silence is Unavailable."""
        kind = type_of(type(query))
        deadline = datetime.now(UTC) + timedelta(seconds=timeout_seconds)
        asking = msgspec.structs.replace(envelope, deadline=deadline, traceparent=telemetry.traceparent())
        future = self.expect(envelope.id)
        try:
            await self._publisher.publish(self._letter(asking, kind, encode(query), persistent=False))
            return await self.wait(future, timeout_seconds=timeout_seconds)
        finally:
            future.cancel()

    def _letter(self, envelope: Envelope, kind: str, body: bytes, *, persistent: bool) -> Letter:
        return Letter(
            exchange=topology.COMMANDS,
            routing_key=kind,
            body=body,
            headers=headers_of(envelope),
            type=kind,
            reply_to=self.queue,
            correlation_id=str(envelope.id),
            persistent=persistent,
        )

    async def _receive(self, received: Received) -> None:
        with suppress(ValueError, msgspec.DecodeError):
            future = self._waiting.get(uuid.UUID(received.correlation_id))
            if future is not None and not future.done():
                future.set_result(decode_reply(received.body))
