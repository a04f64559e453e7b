"""A hostile intermediary, as proxies and firewalls are: it executes or drops a request, and answers with something of its own."""

import random
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Annotated, Any

import msgspec

# ASGI, as servers speak it.
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Message, Receive, Send], Awaitable[None]]

# What is no provider's: the controls, the bank's page, the health checks.
LEFT_ALONE = ("/control", "/3ds/", "/health/")
PAGE = "<html><head><title>Blocked</title></head><body>Your request was blocked.</body></html>"
PROBLEM = '{"type": "about:blank", "title": "Not Found", "status": 404}'
# JSON that databases do not keep: a NUL in a text, and far too many levels.
UNKEPT = ('{"error": {"code": "blocked", "message": "\\u0000"}}', '{"data": ' * 900 + "1" + "}" * 900)
# These have no body (RFC 9110 6.4.1).
BODILESS = (204, 304)

Likelihood = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Reply(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An answer that is not the provider's."""

    # Interim ones are no answers.
    status: Annotated[int, msgspec.Meta(ge=200, le=599)]
    body: str = PAGE
    media_type: str = "text/html"
    # The connection ends in the middle of the body.
    cut: bool = False


JSON = "application/json"
REPLIES = (
    *(Reply(status=status) for status in (200, 202, 301, 302, 307, 400, 401, 403, 404, 405, 407, 408, 410, 413, 429, 451, 499)),
    *(Reply(status=status) for status in (500, 502, 503, 504, 520, 599)),
    *(Reply(status=status, body="") for status in (200, 201, 204, 304, 404, 408)),
    *(
        Reply(status=200, body=body, media_type=JSON)
        for body in ("null", "[]", "{}", '{"status": "ok"}', '{"data": []}', '{"id": "x", "obj')
    ),
    *(Reply(status=404, body=body, media_type=JSON) for body in ("null", PROBLEM, '{"error": null}', '{"error": "not found"}')),
    *(Reply(status=400, body=body, media_type=JSON) for body in UNKEPT),
    Reply(status=200, cut=True),
    Reply(status=404, cut=True),
)


class Meddling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often the intermediary answers in the provider's place, and how."""

    rate: Likelihood = 0.0
    # How likely a request that it answers is executed all the same.
    executed: Likelihood = 0.5
    # The same seed does the same to the same requests in the same order.
    seed: int | None = None
    # Only requests of these methods; of all when there are none.
    methods: tuple[str, ...] = ()
    # It stands aside after so many.
    times: int | None = None
    replies: Annotated[tuple[Reply, ...], msgspec.Meta(min_length=1)] = REPLIES


class Intermediary:
    """Stands between whoever calls and the sandbox."""

    def __init__(self) -> None:
        self.answered = 0
        self.meddle(Meddling())

    def meddle(self, meddling: Meddling) -> None:
        """Go on in another way, counting anew."""
        self.meddling = meddling
        self.answered = 0
        self._rng = random.Random(meddling.seed)

    def before(self, provider: ASGIApp) -> ASGIApp:
        """Stand before a provider."""

        async def between(scope: Message, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or not self._meddles(scope["method"], scope["path"]):
                await provider(scope, receive, send)
                return
            self.answered += 1
            reply, executed = self._rng.choice(self.meddling.replies), self._rng.random() < self.meddling.executed
            await (provider(scope, receive, _unheard) if executed else _drained(receive))
            await _answer(reply, send)

        return between

    def _meddles(self, method: str, path: str) -> bool:
        wanted = self.meddling
        if path.startswith(LEFT_ALONE) or (wanted.methods and method not in wanted.methods):
            return False
        if wanted.times is not None and self.answered >= wanted.times:
            return False
        return wanted.rate > 0 and self._rng.random() < wanted.rate


async def _unheard(_: Message) -> None:
    """Keep the provider's own answer back."""


async def _drained(receive: Receive) -> None:
    message = await receive()
    while message.get("more_body"):
        message = await receive()


async def _answer(reply: Reply, send: Send) -> None:
    body = b"" if reply.status in BODILESS else reply.body.encode()
    headers = [(b"content-type", reply.media_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    # A server that misses the rest ends the connection.
    part = body[: len(body) // 2] if reply.cut else body
    await send({"type": "http.response.body", "body": part, "more_body": reply.cut})
