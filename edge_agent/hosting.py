"""Loads what the edge's settings name: replica, scout, profile; checks that they fit together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog

from edge_agent.host import EdgeHost, ScoutModel
from edge_agent.settings import EdgeSettings
from scout_core.codec.bases import coding_identity, configured_basis
from scout_core.codec.transform_basis import TransformBasis
from scout_core.control.cost import CostModel
from scout_core.daemon.contexts import ContextStore
from scout_core.daemon.models import describe_model, load_engine
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine
from scout_core.engine.loading import ModelTokenizer, load_tokenizer
from scout_core.engine.options import EngineOptions
from scout_core.engine.scouts import scorer_between, scorer_for
from scout_core.errors import ProfileError, SettingsError
from scout_core.models.bundled import profile_file
from scout_core.models.profile import Profile, read_profile
from scout_core.models.quality import UNCALIBRATED
from scout_core.models.registry import BUNDLED_PREFIX, bundled_model
from scout_core.rpc.registration import ModelDescription

SCOUT_STORE_SHARE = 4
"""A scout keeps a third of the layers: a quarter of the store's budget is plenty."""
log = structlog.get_logger("scout.edge")


@dataclass(frozen=True, slots=True)
class LoadedModels:
    """The engines of an edge, and what it tells the cloud about them."""

    replica: Engine | None
    scout: Engine | None
    tokenizer: ModelTokenizer | None = None

    @property
    def descriptions(self) -> tuple[ModelDescription, ...]:
        return tuple(
            describe_model(engine) for engine in (self.replica, self.scout) if engine is not None
        )


def load_host(
    settings: EdgeSettings, worker: TorchWorker
) -> tuple[EdgeHost, tuple[ModelDescription, ...]]:
    """Loads models and profile; runs in the torch thread.

    Raises:
        SettingsError: neither a scout nor the cloud's model is configured.
        ProfileError: the profile is unreadable or made for other models.
        UnknownModelError, UnsupportedModelError: as ``Engine.load``.
    """
    if not settings.cloud_model and not settings.scout_model:
        raise SettingsError("Set scout_model, cloud_model or both: an agent needs a model.")
    models = LoadedModels(
        load_engine(settings.cloud_model, settings) if settings.cloud_model else None,
        load_engine(settings.scout_model, settings) if settings.scout_model else None,
        _tokenizer(settings),
    )
    profile = _profile(settings, models)
    transform = _transform(settings, models.replica)
    if profile is not None and models.replica is not None:
        _note_other_coding(profile, transform)
    budget = settings.context_store_bytes
    host = EdgeHost(
        settings=settings,
        worker=worker,
        replica=models.replica,
        replica_scorer=_replica_scorer(models.replica, profile),
        scout=_scout(models, profile),
        quality=profile.quality_table() if profile else UNCALIBRATED,
        profile_name=profile.name if profile else UNCALIBRATED.name,
        contexts=ContextStore(budget, settings.context_ttl_s),
        scout_contexts=ContextStore(budget // SCOUT_STORE_SHARE, settings.context_ttl_s),
        tokenizer=models.tokenizer,
        profile_cloud=profile.cloud.fingerprint if profile else "",
        transform=transform,
        costs=CostModel(profile.stage_costs() if profile else ()),
    )
    return host, models.descriptions


def _tokenizer(settings: EdgeSettings) -> ModelTokenizer | None:
    if not settings.cloud_tokenizer:
        return None
    if settings.cloud_model:
        raise SettingsError(
            "cloud_model brings its tokenizer along: leave cloud_tokenizer empty, or cloud_model."
        )
    return load_tokenizer(
        EngineOptions(
            reference=settings.cloud_tokenizer, context_limit_tokens=settings.context_limit_tokens
        )
    )


def _profile(settings: EdgeSettings, models: LoadedModels) -> Profile | None:
    """The configured profile, or the one bundled with the pair; checked against the models.

    Raises:
        ProfileError: the configured one is unreadable, or of other models. The bundled one is left
            out where it is of another pair, and the log says so.
    """
    if settings.profile:
        profile = read_profile(Path(settings.profile))
        _require_for(profile, models)
        return profile
    pair = f"{settings.cloud_model} + {settings.scout_model}"
    path = _bundled_profile(settings)
    if path is None:
        log.warning("profile_missing", pair=pair)
        return None
    profile = read_profile(path)
    try:
        _require_for(profile, models)
    except ProfileError as error:
        log.warning("profile_missing", pair=pair, reason=str(error))
        return None
    return profile


def _require_for(profile: Profile, models: LoadedModels) -> None:
    cloud = models.replica.fingerprint if models.replica else profile.cloud.fingerprint
    profile.require_for(cloud, models.scout.fingerprint if models.scout else None)


def _note_other_coding(profile: Profile, transform: TransformBasis | None) -> None:
    """Logs where the profile's qualities of KV modes are of KV coded otherwise than it is sent."""
    sent = coding_identity(transform)
    if profile.kv_coding not in (None, sent):
        log.warning("profile_of_other_coding", measured=profile.kv_coding, sent=sent)


def _bundled_profile(settings: EdgeSettings) -> Path | None:
    """The profile shipped with the scout, or with the cloud's model where there is no scout."""
    reference = settings.scout_model or settings.cloud_model
    if not reference.startswith(BUNDLED_PREFIX):
        return None
    return profile_file(bundled_model(reference.removeprefix(BUNDLED_PREFIX)))


def _transform(settings: EdgeSettings, replica: Engine | None) -> TransformBasis | None:
    if replica is None:
        return None
    return configured_basis(settings.transform, replica.fingerprint)


def _replica_scorer(replica: Engine | None, profile: Profile | None) -> ScoutModel | None:
    if replica is None:
        return None
    record = profile.cloud_head_weights if profile else None
    scorer = scorer_for(replica, record.read() if record else None)
    return ScoutModel(replica, scorer, scorer.selector_name)


def _scout(models: LoadedModels, profile: Profile | None) -> ScoutModel | None:
    """Scores the tokens by which contexts are split here, whatever the scout's own are."""
    engine = models.scout
    if engine is None:
        return None
    record = profile.scout_head_weights if profile else None
    asked = models.replica or models.tokenizer or engine
    scorer = scorer_between(engine, asked, record.read() if record else None)
    return ScoutModel(engine, scorer, scorer.selector_name)
