"""Asking through a client and shaping what comes back; shared by ``ask`` and ``demo``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scout.v1 import inference_pb2

from scout_core.errors import RemoteProtocolError
from scout_core.modes import Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.rpc.messages import mode_from_wire, unit_from_wire


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered question with its accounting."""

    ask: Ask
    text: str
    started: inference_pb2.Started
    finished: inference_pb2.Finished

    @property
    def mode(self) -> Mode:
        return mode_from_wire(self.finished.mode)

    def facts(self) -> dict[str, object]:
        """For JSON output."""
        counts, timing = self.finished.bytes, self.finished.timing
        return {
            "question": self.ask.question,
            "answer": self.text,
            "mode": self.mode.value,
            "forced": self.started.forced,
            "retention": round(self.started.retention, 4),
            "selector": self.started.selector,
            "position_unit": unit_from_wire(self.started.position_unit).value,
            "context_tokens": self.finished.context_tokens,
            "kept_tokens": self.finished.kept_tokens,
            "payload_bytes": counts.payload_bytes,
            "uplink_bytes": counts.uplink_bytes,
            "downlink_bytes": counts.downlink_bytes,
            "indices_bytes": counts.indices_bytes,
            "kv_bf16_bytes": counts.kv_bf16_bytes,
            "predicted_ttft_s": round(self.started.predicted_ttft_s, 4),
            "ttft_s": round(timing.ttft_s, 4),
            "total_s": round(timing.total_s, 4),
            "deadline_s": round(timing.deadline_s, 4),
            "deadline_met": self.finished.deadline_met,
            "expected_quality": round(self.started.expected_quality, 4),
            "reason": self.started.reason,
            "numerics": self.started.numerics,
            "kv_codecs": self.finished.kv_codecs,
            "degradation": self.finished.degradation,
        }


async def ask_once(
    client: InferenceClient, ask: Ask, on_text: Callable[[str], None] | None = None
) -> Answer:
    """Asks and collects the answer; ``on_text`` sees each piece as it arrives.

    Raises:
        ScoutError: as the daemon answered.
        RemoteProtocolError: the stream ended without its closing message.
    """
    started = finished = None
    pieces: list[str] = []
    async for response in client.generate(ask):
        match response.WhichOneof("event"):
            case "started":
                started = response.started
            case "token":
                pieces.append(response.token.text)
                if on_text is not None:
                    on_text(response.token.text)
            case "finished":
                finished = response.finished
            case _:
                raise RemoteProtocolError("An unknown answer event; run the same version.")
    if started is None or finished is None:
        raise RemoteProtocolError("The answer ended without its accounting; ask again.")
    return Answer(ask, "".join(pieces).strip(), started, finished)
