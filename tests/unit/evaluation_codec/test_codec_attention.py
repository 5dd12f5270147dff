"""The attention that the codec study grades by: against the model's own, over the whole context."""

from __future__ import annotations

import pytest
import torch

from scout_core.engine.loading import LoadedModel, load_model
from scout_core.engine.options import EngineOptions
from scout_core.evaluation.codec_probe import OBSERVED_TOKENS, CacheProbe
from tests.support.tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    return load_model(EngineOptions(str(folder)), lambda _stage, _fraction: None)


@pytest.mark.parametrize(("length", "observed"), [(150, OBSERVED_TOKENS), (31, 15), (1, 0)])
def test_it_is_the_mean_square_of_what_the_last_tokens_look_at(
    model: LoadedModel, length: int, observed: int
) -> None:
    probe = CacheProbe(model)
    generator = torch.Generator().manual_seed(length)
    prefix = torch.randint(10, 300, (length,), generator=generator).tolist()
    kv, holder = probe.prefilled(prefix)
    found = probe.attention(holder, kv, prefix)
    model.module.set_attn_implementation("eager")
    with torch.no_grad():
        whole = model.module(torch.tensor([prefix]), output_attentions=True).attentions
    model.module.set_attn_implementation("sdpa")
    rows = torch.stack([layer[0, :, length - observed :] for layer in whole])
    expected = rows.double().square().mean(dim=(0, 1, 2)) if observed else torch.zeros(length)
    assert found.shape == (length,)
    assert torch.allclose(torch.from_numpy(found), expected.double(), rtol=0.05, atol=1e-6)


def test_likelihoods_after_it_are_those_before_it(model: LoadedModel) -> None:
    probe = CacheProbe(model)
    prefix = list(range(20, 60))
    kv, holder = probe.prefilled(prefix)
    with torch.no_grad():
        before = probe.log_likelihoods(holder, kv, (5, 6, 7))
        probe.attention(holder, kv, prefix)
        assert torch.equal(probe.log_likelihoods(holder, kv, (5, 6, 7)), before)
