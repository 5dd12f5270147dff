"""Runs language models: load, prefill, score, KV in and out, decode. The only user of transformers.

It does not know modes, sessions, the wire or the clock.
"""

from scout_core.engine.decoding import DecodedToken, Decoder
from scout_core.engine.engine import Engine
from scout_core.engine.kv_cache import KvCache
from scout_core.engine.options import EngineOptions
from scout_core.engine.prompt import PromptTemplate
from scout_core.sampling import SamplingOptions

__all__ = [
    "DecodedToken",
    "Decoder",
    "Engine",
    "EngineOptions",
    "KvCache",
    "PromptTemplate",
    "SamplingOptions",
]
