"""Posting to merchants: signed, and only to addresses that may be called."""

import time

from services.webhooks.providers.standard import sign
from services.webhooks.store.deliveries import Due
from shared.outbound import OutboundAnswer, OutboundCallFailed, OutboundClient, OutboundFailure, OutboundUrl, OutboundUrlInvalid

REDIRECTS = range(300, 400)


class Messenger:
    """Posts events to merchants' addresses."""

    def __init__(self, *, allow_private: bool, timeout_seconds: float) -> None:
        self._allow_private = allow_private
        self._client = OutboundClient(timeout_seconds=timeout_seconds)

    async def post(self, due: Due) -> OutboundAnswer:
        """Post one event; gives what was answered, raises OutboundCallFailed."""
        try:
            url = OutboundUrl.parse(due.url, allow_private=self._allow_private)
        except OutboundUrlInvalid as invalid:
            raise OutboundCallFailed(OutboundFailure.NOT_ALLOWED, f"the endpoint's address: {invalid}") from invalid
        return await self._client.post(url, body=due.body, headers=_signed(due))

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()


def error_class(status: int) -> str:
    """Name the class of error of an answer that is no success, as merchants read it."""
    return "redirected" if status in REDIRECTS else f"status_{status}"


def _signed(due: Due) -> dict[str, str]:
    event_id, timestamp = str(due.event_id), str(int(time.time()))
    signatures = [sign(secret, event_id=event_id, timestamp=timestamp, body=due.body) for secret in due.secrets]
    return {
        "Content-Type": "application/json",
        "User-Agent": "Tender-Webhooks/1",
        "webhook-id": event_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(signatures),
    }
