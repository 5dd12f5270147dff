"""The offers of a session as the uplink's scheduler weighs them.

The edge says what its offers weigh and are worth; how long this server then needs is this server's
own to say. Pure translation: it decides nothing and keeps nothing.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

from cloud_server.admission import payload_limit_bytes
from cloud_server.host import ModelHost
from scout_core.allocation.offer import MAX_OFFERS, Offer
from scout_core.control.coding import TRANSFORMED, KvCoding, inject_stage
from scout_core.control.cost import Stage
from scout_core.control.offers import kept_tokens
from scout_core.errors import RequestError
from scout_core.modes import Execution, Mode, TenantId
from scout_core.protocol.opening import Offer as OpenedOffer
from scout_core.protocol.opening import OpenParameters

WHOLE_QUALITY = 1.0
SIZE_TOLERANCE = 0.02
"""Declared sizes of coded KV are estimates."""
TOKEN_BYTES = 4
SLACK_BYTES = 4_096
"""Block headers, and payloads of a few indices."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way of serving a session: what the scheduler weighs, and the execution it stands for."""

    offer: Offer
    execution: Execution | None

    def left_after(self, received_bytes: int) -> Alternative:
        """The same once ``received_bytes`` have crossed and the edge has the payload ready."""
        left = max(1, self.offer.payload_bytes - received_bytes)
        return replace(self, offer=replace(self.offer, payload_bytes=left, edge_s=0.0))


def alternatives_of(
    parameters: OpenParameters, host: ModelHost, tenant: TenantId, delivery_s: float
) -> tuple[Alternative, ...]:
    """What the session may send: the offers of its open, or the one that it announces.

    The scheduler counts a byte when it is promised, so ``delivery_s``, which it then takes to
    arrive, comes before what the cloud computes.

    Raises:
        RequestError, RetentionError: a figure is out of its range, or too many offers.
    """
    opened = parameters.offers or (_announced(parameters, host),)
    if len(opened) > MAX_OFFERS:
        raise RequestError(f"{len(opened)} offers; a session may make {MAX_OFFERS}.")
    return tuple(
        Alternative(
            Offer(
                offer.mode,
                offer.retention,
                # A context that the cloud holds may need no payload at all; a message has a byte.
                max(1, offer.payload_bytes),
                offer.expected_quality,
                offer.edge_s,
                delivery_s + _cloud_s(offer, parameters, host, tenant),
            ),
            offer.execution,
        )
        for offer in opened
    )


def most_payload_bytes(alternatives: tuple[Alternative, ...], context_tokens: int) -> int:
    """The most that a session which keeps to its offers can send: the largest of them and, if it
    has to leave the rest of its KV to the cloud, the token ids."""
    largest = max(alternative.offer.payload_bytes for alternative in alternatives)
    return math.ceil(largest * (1 + SIZE_TOLERANCE)) + context_tokens * TOKEN_BYTES + SLACK_BYTES


def column_of(alternatives: tuple[Alternative, ...], mode: Mode, retention: float) -> int | None:
    """Which of the alternatives is sent; the nearest retention of the mode counts."""
    columns = [
        (abs(alternative.offer.retention - retention), column)
        for column, alternative in enumerate(alternatives)
        if alternative.offer.mode is mode
    ]
    return min(columns)[1] if columns else None


def _announced(parameters: OpenParameters, host: ModelHost) -> OpenedOffer:
    return OpenedOffer(
        parameters.mode,
        parameters.retention,
        parameters.expected_payload_bytes or payload_limit_bytes(parameters, host),
        WHOLE_QUALITY,
        0.0,
        parameters.execution,
    )


def _cloud_s(
    offer: OpenedOffer, parameters: OpenParameters, host: ModelHost, tenant: TenantId
) -> float:
    """Seconds from the last payload byte to the first token, the queue as it is now included."""
    prompt, costs = host.engine.prompt, host.cost_model
    head, context = len(prompt.head_tokens), parameters.context_tokens
    kept = head + kept_tokens(context, offer.retention)
    seconds = host.worker.queue_s + costs.predict(
        Stage.CLOUD_FIRST_TOKEN, len(prompt.tail_tokens(parameters.question))
    )
    if offer.mode.carries_kv:
        coding = KvCoding.PLAIN
        if host.transform is not None and offer.mode in TRANSFORMED:
            coding = KvCoding.TRANSFORM  # it may be; that takes longer
        return seconds + costs.predict(inject_stage(coding), kept)
    if offer.execution is Execution.SPARSE:
        return seconds + costs.predict(Stage.CLOUD_SPARSE, kept)
    stored = host.contexts.find(tenant, parameters.context_hash, time.monotonic())
    if stored is not None and stored.cache is not None:
        return seconds
    return seconds + costs.predict(Stage.CLOUD_PREFILL, head + context)
