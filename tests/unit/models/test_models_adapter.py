"""Adapters: merged as W + alpha/rank * B A, refused when they are another model's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scout_core.errors import ProfileError
from scout_core.models.adapter import merge_adapter, read_adapter

LAYER = "model.layers.0.self_attn.q_proj"
FACTS = {"rank": "2", "alpha": "4"}


def factors(layer: str = LAYER, inside: int = 6, outside: int = 8) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        f"{layer}.lora_A": torch.randn(2, inside, generator=generator),
        f"{layer}.lora_B": torch.randn(outside, 2, generator=generator),
    }


def saved(
    folder: Path, tensors: dict[str, torch.Tensor], facts: dict[str, str] | None = None
) -> Path:
    path = folder / "adapter.safetensors"
    save_file(tensors, path, metadata=FACTS if facts is None else facts)
    return path


def test_merging_adds_the_scaled_product(tmp_path: Path) -> None:
    tensors = factors()
    weight = torch.ones(8, 6)
    merge_adapter(read_adapter(saved(tmp_path, tensors)), {f"{LAYER}.weight": weight})
    product = tensors[f"{LAYER}.lora_B"] @ tensors[f"{LAYER}.lora_A"]
    torch.testing.assert_close(weight, 1.0 + 2.0 * product)


def test_merging_into_bfloat16_rounds_once(tmp_path: Path) -> None:
    tensors = factors()
    exact = torch.randn(8, 6, generator=torch.Generator().manual_seed(2)).bfloat16()
    weight = exact.clone()
    merge_adapter(read_adapter(saved(tmp_path, tensors)), {f"{LAYER}.weight": weight})
    product = tensors[f"{LAYER}.lora_B"] @ tensors[f"{LAYER}.lora_A"]
    assert torch.equal(weight, (exact.float() + 2.0 * product).bfloat16())


def test_layers_cut_from_the_model_are_left_out(tmp_path: Path) -> None:
    tensors = factors() | factors("model.layers.9.self_attn.q_proj")
    weight = torch.zeros(8, 6)
    merge_adapter(read_adapter(saved(tmp_path, tensors)), {f"{LAYER}.weight": weight})
    assert bool(weight.any())


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path, factors()))
    with pytest.raises(ProfileError, match="another model"):
        merge_adapter(adapter, {f"{LAYER}.weight": torch.zeros(8, 7)})
    with pytest.raises(ProfileError, match="another model"):
        merge_adapter(adapter, {"model.other.weight": torch.zeros(8, 6)})


@pytest.mark.parametrize("facts", [{"rank": "2"}, {"rank": "0", "alpha": "1"}, {"rank": "a"}])
def test_an_adapter_without_its_scale_is_refused(tmp_path: Path, facts: dict[str, str]) -> None:
    with pytest.raises(ProfileError, match="rank and alpha"):
        read_adapter(saved(tmp_path, factors(), facts))


def test_half_a_pair_is_refused(tmp_path: Path) -> None:
    tensors = factors()
    del tensors[f"{LAYER}.lora_B"]
    with pytest.raises(ProfileError, match="lora_A and lora_B"):
        read_adapter(saved(tmp_path, tensors))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(ProfileError, match="not a safetensors file"):
        read_adapter(path)
    with pytest.raises(ProfileError, match="not a safetensors file"):
        read_adapter(tmp_path / "absent.safetensors")
