"""A context that comes as text, and a selection that comes as ranges of its characters.

For edges without this server's tokenizer: owns the two blocks such a session has and their
translation into the tokens that everything else here counts in. The text is stored beside its
tokens under the text's hash, so that the next question needs ranges alone.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cloud_server.host import ModelHost
from scout_core.codec.spans import Span, decode_spans
from scout_core.daemon.contexts import text_hash
from scout_core.errors import (
    ContextTooLongError,
    DigestMismatchError,
    PayloadError,
    PositionsError,
    UnknownContextError,
)
from scout_core.modes import PositionUnit, TenantId
from scout_core.protocol.blocks import Block, BlockKind
from scout_core.protocol.opening import OpenParameters
from scout_core.selection.alignment import covering_tokens

CHARACTER_KINDS = frozenset({BlockKind.TEXT, BlockKind.SPANS})


@dataclass(frozen=True, slots=True)
class TokenisedContext:
    """The context and the selection in this server's tokens."""

    tokens: tuple[int, ...]
    selection: npt.NDArray[np.int64] | None
    """Ascending indices; None keeps everything."""


@dataclass(slots=True)
class CharacterContext:
    """Collects the blocks of one session; ``tokenised`` is called once, when all have come."""

    host: ModelHost
    parameters: OpenParameters
    tenant: TenantId
    _text: str | None = None
    _spans: tuple[Span, ...] | None = None

    def add(self, block: Block) -> None:
        """Takes a TEXT or a SPANS block.

        Raises:
            PayloadError: a second one of its kind, or not the text that was announced.
            PositionsError: ranges that do not fit the text.
            DigestMismatchError: another text than the session's context hash names.
        """
        header, characters = block.header, self.parameters.context_characters
        if header.start != 0 or header.codec_id != 0:
            raise PayloadError(f"A {header.kind.name} block comes whole and uncoded, from 0.")
        if header.kind is BlockKind.SPANS:
            if self._spans is not None:
                raise PayloadError("A session carries one selection; a second SPANS block came.")
            self._spans = decode_spans(block.body, characters, header.count)
            return
        if self._text is not None:
            raise PayloadError("A session carries one context; a second TEXT block came.")
        try:
            text = block.body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise PayloadError(f"The context's text is not UTF-8: {error.reason}.") from error
        if not len(text) == header.count == characters:
            raise PayloadError(
                f"The text has {len(text)} characters, the session announced {characters}."
            )
        if text_hash(text) != self.parameters.context_hash:
            raise DigestMismatchError("The text does not have the session's context hash.")
        self._text = text

    async def tokenised(self) -> TokenisedContext:
        """Tokens and selection; the context is stored from here on.

        Raises:
            UnknownContextError: the text was neither sent nor stored.
            ContextTooLongError: more tokens than this server accepts.
            PositionsError: the ranges cover no token.
            EmptyInputError: a text of nothing but white space.
        """
        key = self.parameters.context_hash
        text = self._text
        if text is None:
            text = self.host.contexts.get(self.tenant, key, time.monotonic()).text
            if not text:
                raise UnknownContextError("The context is stored as token ids; send its text.")
        engine = self.host.engine
        tokens, spans = await self.host.worker.run(engine.prompt.located_tokens, text)
        if len(tokens) > engine.context_limit_tokens:
            raise ContextTooLongError(
                f"The context has {len(tokens)} tokens here; 1 to {engine.context_limit_tokens} "
                "are accepted. Shorten it or raise context_limit_tokens.",
                context_tokens=len(tokens),
                limit_tokens=engine.context_limit_tokens,
            )
        self.host.contexts.put_tokens(self.tenant, key, tokens, time.monotonic(), text)
        if self._spans is None:
            return TokenisedContext(tokens, None)
        selection = covering_tokens(self._spans, spans)
        if len(selection) == 0:
            raise PositionsError("The ranges cover no token of the context; keep at least a word.")
        return TokenisedContext(tokens, selection)


def require_unit(block: Block, unit: PositionUnit) -> None:
    """Raises PayloadError for a block that counts in another unit than its session."""
    if (block.header.kind in CHARACTER_KINDS) != (unit is PositionUnit.CHARACTERS):
        raise PayloadError(
            f"A {block.header.kind.name} block came in a session that counts {unit.value}: send "
            "INDICES and TOKENS for cloud_tokens, SPANS and TEXT for characters.",
        )
