"""Loading the engines a daemon is configured with, progress in the log."""

from __future__ import annotations

import structlog

from scout_core.daemon.serving import ServingSettings
from scout_core.engine import Engine, EngineOptions
from scout_core.rpc.registration import ModelDescription

log = structlog.get_logger("scout.daemon")


def describe_model(engine: Engine, transform: str = "") -> ModelDescription:
    """What the other end needs to know about a loaded model.

    Args:
        transform: digest of the transform basis held for it; empty: none.
    """
    return ModelDescription(
        name=engine.name,
        fingerprint=engine.fingerprint,
        tokenizer_fingerprint=engine.tokenizer_fingerprint,
        geometry=engine.geometry,
        vocabulary=engine.vocabulary,
        context_limit_tokens=engine.context_limit_tokens,
        compute_dtype=engine.compute_dtype,
        transform=transform,
    )


def load_engine(reference: str, settings: ServingSettings) -> Engine:
    """Loads a model with the daemon's host settings; runs in the torch thread.

    Raises:
        UnknownModelError, UnsupportedModelError: as ``Engine.load``.
    """

    def progress(stage: str, fraction: float) -> None:
        log.info("model_loading", model=reference, stage=stage, fraction=round(fraction, 2))

    options = EngineOptions(
        reference=reference,
        compute_dtype=settings.compute_dtype,
        device=settings.device,
        threads=settings.threads or None,
        context_limit_tokens=settings.context_limit_tokens,
    )
    engine = Engine.load(options, progress)
    log.info(
        "model_loaded",
        model=engine.name,
        fingerprint=engine.fingerprint[:12],
        compute_dtype=engine.compute_dtype,
        layers=engine.geometry.layers,
    )
    return engine
