"""Decoding one answer, a step at a time, in turn with everybody else's."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from cloud_server.host import ModelHost
from scout_core.control.cost import Stage
from scout_core.engine import Decoder, KvCache
from scout_core.protocol.answer import AnswerToken, FinishReason
from scout_core.sampling import SamplingOptions


@dataclass(slots=True)
class Answering:
    """One answer in progress; iterate ``tokens`` once, then read the rest."""

    host: ModelHost
    cache: KvCache
    question: str
    sampling: SamplingOptions
    first_step_s: float = 0.0
    decode_s: float = 0.0
    answer_tokens: int = 0
    finish_reason: FinishReason = FinishReason.END_OF_TEXT
    _decoder: Decoder | None = field(default=None)

    async def tokens(self) -> AsyncIterator[AnswerToken]:
        """The answer. Each step is one job of the torch thread."""
        worker, engine = self.host.worker, self.host.engine
        tail = engine.prompt.tail_tokens(self.question)
        decoder = engine.decoder(self.cache, tail, self.sampling)
        started_s = time.monotonic()
        while (token := await worker.run(decoder.step)) is not None:
            now_s = time.monotonic()
            self._note_step(len(tail), now_s - started_s)
            started_s = now_s
            self.answer_tokens += 1
            yield AnswerToken(token.text, token.token_id)
        self.finish_reason = FinishReason(decoder.finish_reason)

    def _note_step(self, tail_tokens: int, elapsed_s: float) -> None:
        if self.answer_tokens == 0:
            self.first_step_s = elapsed_s
            self.host.cost_model.observe(Stage.CLOUD_FIRST_TOKEN, tail_tokens, elapsed_s)
        else:
            self.decode_s += elapsed_s
            self.host.cost_model.observe(Stage.CLOUD_DECODE_STEP, 1, elapsed_s)
