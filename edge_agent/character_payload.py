"""What an edge without the cloud's tokenizer sends: the text, and ranges of its characters.

Owns the two blocks and their planned sizes. Which tokens of the scout's are kept is decided
elsewhere; the cloud keeps every token of its own that holds one of their characters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from scout_core.codec.spans import MAX_CHARACTERS, encode_spans
from scout_core.control.sizes import BLOCK_HEADER_BYTES
from scout_core.errors import ContextTooLongError, ModeUnavailableError
from scout_core.modes import Mode
from scout_core.protocol.blocks import BlockKind, encode_block
from scout_core.selection.alignment import Span, kept_spans
from scout_core.selection.selectors import run_width

NO_CODEC: Final = 0
RANGE_BYTES: Final = 3
"""Two numbers; one of them is now and then above 128 characters."""


@dataclass(frozen=True, slots=True)
class CharacterSizes:
    """Planned sizes of a session that counts characters; see ``scout_core.control.sizes``."""

    text: str

    def kv_bytes(self, mode: Mode, positions: int) -> int:
        """Never asked for: KV needs the cloud's model, and with it comes its tokenizer.

        Raises:
            ModeUnavailableError: always.
        """
        raise ModeUnavailableError(
            f"Mode {mode.value} of {positions} positions needs the cloud's model on this edge; use "
            "mode scout."
        )

    def index_bytes(self, context_tokens: int, kept: int) -> int:
        """Ranges are about half as long as the neighbourhood that scores are averaged over."""
        del context_tokens
        runs = math.ceil(kept / max(1, run_width(kept) // 2))
        return runs * RANGE_BYTES + BLOCK_HEADER_BYTES

    def token_bytes(self, tokens: int) -> int:
        """The whole text, however much of it is kept: tokens depend on what stands around them."""
        del tokens
        return len(self.text.encode()) + BLOCK_HEADER_BYTES


def require_short_enough(text: str) -> None:
    """Raises ContextTooLongError for a text whose characters the wire cannot count."""
    if len(text) > MAX_CHARACTERS:
        raise ContextTooLongError(
            f"The context has {len(text)} characters; up to {MAX_CHARACTERS} can be sent without "
            "the cloud's tokenizer. Shorten it, or set cloud_tokenizer.",
            context_characters=len(text),
            limit_characters=MAX_CHARACTERS,
        )


def text_block(text: str) -> bytes:
    """The context."""
    return encode_block(BlockKind.TEXT, NO_CODEC, 0, len(text), text.encode())


def spans_block(
    selection: npt.NDArray[np.int64], spans: Sequence[Span], text: str
) -> tuple[bytes, int]:
    """The characters of the selected tokens as a block, and the bytes of its body.

    Args:
        selection: ascending indices of the scout's tokens.
        spans: of all its tokens in ``text``.
    """
    kept = kept_spans(selection, spans)
    body = encode_spans(kept, len(text))
    return encode_block(BlockKind.SPANS, NO_CODEC, 0, len(kept), body), len(body)
