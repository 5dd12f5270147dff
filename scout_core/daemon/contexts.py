"""Contexts by content hash: token ids and, once prefilled, the KV cache.

Owns the byte budget, LRU order, time to live and the separation of tenants; both daemons keep one.
It does not know how a cache is computed. Keys are (tenant, SHA-256 of the token ids), so equal
contexts of different tenants never meet. Pure: takes ``now``, does no I/O.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from scout_core.errors import OverloadedError, UnknownContextError
from scout_core.modes import ContextHash, TenantId

TOKEN_BYTES: Final = 4


class SizedCache(Protocol):
    """What the store needs of a KV cache."""

    @property
    def nbytes(self) -> int: ...


CacheT = TypeVar("CacheT", bound=SizedCache)


def context_hash(tokens: Sequence[int], tokenizer_fingerprint: str) -> ContextHash:
    """SHA-256 over the tokenizer's fingerprint and the token ids as little-endian uint32."""
    digest = hashlib.sha256(tokenizer_fingerprint.encode())
    packed = array("I", tokens)
    if packed.itemsize != TOKEN_BYTES:  # pragma: no cover - no supported platform differs
        raise AssertionError("array('I') is not 32 bits wide here")
    digest.update(packed.tobytes())
    return ContextHash(digest.digest())


def text_hash(text: str) -> ContextHash:
    """SHA-256 of a context's text: its name between ends that share no tokenizer.

    Begins with a mark that no tokenizer's fingerprint begins with, so that it never equals a
    ``context_hash``.
    """
    return ContextHash(hashlib.sha256(b"text:" + text.encode()).digest())


@dataclass(slots=True)
class StoredContext(Generic[CacheT]):
    """One context of one tenant. ``cache`` covers head and context tokens, at full length.

    ``text`` is kept where it is needed (an edge's scout may look at words); else it is empty.
    """

    tokens: tuple[int, ...]
    text: str = ""
    cache: CacheT | None = None
    last_used_s: float = 0.0

    @property
    def nbytes(self) -> int:
        cache_bytes = self.cache.nbytes if self.cache is not None else 0
        return len(self.tokens) * TOKEN_BYTES + len(self.text) + cache_bytes


class ContextStore(Generic[CacheT]):
    """A bounded map from (tenant, hash) to contexts.

    Args:
        budget_bytes: most bytes held; least recently used contexts go first. A cache that alone
            exceeds the budget is not kept (its tokens are), so a request never fails for it.
        time_to_live_s: seconds after the last use at which a context is forgotten.
    """

    def __init__(self, budget_bytes: int, time_to_live_s: float) -> None:
        self.budget_bytes = budget_bytes
        self.time_to_live_s = time_to_live_s
        self._contexts: OrderedDict[tuple[TenantId, ContextHash], StoredContext[CacheT]] = (
            OrderedDict()
        )
        self._held_bytes = 0

    def __len__(self) -> int:
        return len(self._contexts)

    @property
    def held_bytes(self) -> int:
        return self._held_bytes

    def find(self, tenant: TenantId, key: ContextHash, now: float) -> StoredContext[CacheT] | None:
        """The context, its use recorded; None when unknown or expired."""
        self.expire(now)
        stored = self._contexts.get((tenant, key))
        if stored is not None:
            stored.last_used_s = now
            self._contexts.move_to_end((tenant, key))
        return stored

    def get(self, tenant: TenantId, key: ContextHash, now: float) -> StoredContext[CacheT]:
        """The context.

        Raises:
            UnknownContextError: unknown or expired.
        """
        stored = self.find(tenant, key, now)
        if stored is None:
            raise UnknownContextError(
                f"Context {key.hex()[:12]} is not stored here (any more); upload it again.",
                context_hash=key.hex(),
            )
        return stored

    def put_tokens(
        self,
        tenant: TenantId,
        key: ContextHash,
        tokens: tuple[int, ...],
        now: float,
        text: str = "",
    ) -> StoredContext[CacheT]:
        """Stores a context's tokens, keeping a cache it already has.

        Raises:
            OverloadedError: the tokens alone exceed the budget.
        """
        known = self.find(tenant, key, now)
        if known is not None:
            return known
        stored: StoredContext[CacheT] = StoredContext(tokens, text, last_used_s=now)
        if stored.nbytes > self.budget_bytes:
            raise OverloadedError(
                f"The context needs {stored.nbytes} bytes, the store holds {self.budget_bytes}; "
                "raise context_store_bytes."
            )
        self._contexts[tenant, key] = stored
        self._held_bytes += stored.nbytes
        self._make_room(keep=(tenant, key))
        return stored

    def put_cache(self, tenant: TenantId, key: ContextHash, cache: CacheT, now: float) -> bool:
        """Attaches a cache to a stored context; False when it does not fit or the context went."""
        stored = self.find(tenant, key, now)
        if stored is None or cache.nbytes > self.budget_bytes:
            return False
        self._held_bytes -= stored.nbytes
        stored.cache = cache
        self._held_bytes += stored.nbytes
        self._make_room(keep=(tenant, key))
        return True

    def expire(self, now: float) -> None:
        """Forgets contexts unused for longer than the time to live."""
        while self._contexts:
            key, oldest = next(iter(self._contexts.items()))
            if now - oldest.last_used_s <= self.time_to_live_s:
                return
            self._drop(key)

    def _make_room(self, keep: tuple[TenantId, ContextHash]) -> None:
        while self._held_bytes > self.budget_bytes:
            victim = next(iter(self._contexts))
            if victim == keep:  # only the newest is left, and it fits by the checks above
                return
            self._drop(victim)

    def _drop(self, key: tuple[TenantId, ContextHash]) -> None:
        self._held_bytes -= self._contexts.pop(key).nbytes
