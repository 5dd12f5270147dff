"""Loading: references, identities, numeric types, depth."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from scout_core.engine import Engine, EngineOptions, SamplingOptions
from scout_core.engine.compute import choose_device, choose_dtype, has_bf16_matrix_unit
from scout_core.engine.fingerprint import model_identity
from scout_core.engine.loading import ModelSource, load_model
from scout_core.errors import SettingsError, UnknownModelError, UnsupportedModelError
from tests.support.tiny_models import (
    HEAD_DIM,
    KV_HEADS,
    LAYERS,
    WINDOW_TOKENS,
    random_tokens,
    save_tiny_model,
    tiny_engine,
)

TOKENIZER = "t" * 64


@pytest.fixture
def copied(llama_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama_folder, tmp_path / "copy"))


def test_an_engine_says_what_it_is(llama: Engine, llama_folder: Path) -> None:
    assert llama.name == str(llama_folder)
    geometry = llama.geometry
    assert (geometry.layers, geometry.kv_heads, geometry.head_dim) == (LAYERS, KV_HEADS, HEAD_DIM)
    assert (llama.layers, llama.compute_dtype) == (LAYERS, "float32")
    assert llama.context_limit_tokens == WINDOW_TOKENS
    assert llama.vocabulary > max(llama.prompt.head_tokens)


def test_progress_is_told_in_order_up_to_ready(llama_folder: Path) -> None:
    told: list[tuple[str, float]] = []

    def tell(stage: str, fraction: float) -> None:
        told.append((stage, fraction))

    Engine.load(EngineOptions(str(llama_folder), device="cpu"), tell)
    assert [fraction for _, fraction in told] == sorted(fraction for _, fraction in told)
    assert told[0] == ("files", 0.0)
    assert told[-1] == ("ready", 1.0)


def test_equal_files_have_equal_fingerprints_wherever_they_are(llama: Engine, copied: Path) -> None:
    assert tiny_engine(copied).fingerprint == llama.fingerprint
    assert tiny_engine(copied, compute_dtype="bfloat16").fingerprint == llama.fingerprint


def test_how_a_config_was_saved_is_not_part_of_the_fingerprint(copied: Path) -> None:
    before = model_identity(copied, (), None, TOKENIZER)
    config = json.loads((copied / "config.json").read_text())
    config["transformers_version"] = "99.0"
    (copied / "config.json").write_text(json.dumps(config, indent=7))
    assert model_identity(copied, (), None, TOKENIZER) == before
    config["rope_parameters"]["rope_theta"] = 123.0
    (copied / "config.json").write_text(json.dumps(config))
    assert model_identity(copied, (), None, TOKENIZER) != before


def test_weights_depth_adapter_and_tokenizer_are_part_of_the_fingerprint(
    llama_folder: Path, tmp_path: Path
) -> None:
    other = save_tiny_model(tmp_path / "other", seed=1)
    adapter = tmp_path / "adapter"
    adapter.write_bytes(b"x")
    identities = {
        model_identity(llama_folder, (), None, TOKENIZER),
        model_identity(other, (), None, TOKENIZER),
        model_identity(llama_folder, (), 2, TOKENIZER),
        model_identity(llama_folder, (adapter,), None, TOKENIZER),
        model_identity(llama_folder, (), None, "u" * 64),
    }
    assert len(identities) == 5


def test_models_that_share_a_tokenizer_share_its_fingerprint(llama: Engine, tmp_path: Path) -> None:
    other = tiny_engine(save_tiny_model(tmp_path / "other", seed=1))
    assert other.tokenizer_fingerprint == llama.tokenizer_fingerprint
    assert other.fingerprint != llama.fingerprint
    plain = tiny_engine(save_tiny_model(tmp_path / "plain", template=None))
    assert plain.tokenizer_fingerprint != llama.tokenizer_fingerprint


def test_a_cut_engine_has_fewer_layers_and_cannot_answer(family_folder: Path) -> None:
    engine = tiny_engine(family_folder, layers=2)
    cache = engine.new_cache()
    engine.prefill(cache, random_tokens(engine, 12))
    assert cache.tensor(0, 12).shape == (2, 2, KV_HEADS, 12, HEAD_DIM)
    with pytest.raises(UnsupportedModelError, match="cannot answer"):
        engine.decoder(cache, [5], SamplingOptions())


def test_running_all_layers_by_name_is_running_the_whole_model(llama: Engine, copied: Path) -> None:
    assert tiny_engine(copied, layers=LAYERS).fingerprint == llama.fingerprint
    with pytest.raises(UnsupportedModelError, match="has 3 layers"):
        tiny_engine(copied, layers=LAYERS + 1)


@pytest.mark.parametrize("layers", [None, 2])
def test_an_adapter_is_merged_into_whole_and_cut_models(
    llama_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int | None
) -> None:
    name = "model.layers.1.self_attn.v_proj"
    down, up = torch.ones(1, 64), torch.ones(KV_HEADS * HEAD_DIM, 1)
    path = tmp_path / "adapter.safetensors"
    facts = {"rank": "1", "alpha": "0.5"}
    save_file({f"{name}.lora_A": down, f"{name}.lora_B": up}, path, metadata=facts)
    options = EngineOptions(str(llama_folder), "float32", "cpu", layers)

    def silent(_stage: str, _fraction: float) -> None:
        pass

    def weight() -> torch.Tensor:
        module = load_model(options, silent).module
        stack = module.model if layers is None else module
        return stack.layers[1].self_attn.v_proj.weight

    base = weight().clone()
    source = ModelSource("tiny", llama_folder, path, layers)

    def resolved(_options: EngineOptions) -> ModelSource:
        return source

    monkeypatch.setattr("scout_core.engine.loading.resolve", resolved)
    torch.testing.assert_close(weight(), base + 0.5)


@pytest.mark.parametrize("reference", ["bundled:nonesuch", "", "no such model"])
def test_a_reference_that_leads_nowhere_is_refused(reference: str) -> None:
    with pytest.raises(UnknownModelError):
        Engine.load(EngineOptions(reference, device="cpu"))


@pytest.mark.parametrize(
    "reference",
    [
        "/no-such-model",
        "/no/such/model",
        "./nowhere",
        "../nowhere",
        "~/nowhere",
        "~nobody-of-this-name/nowhere",
        "nowhere/at/all",
        "owner/name/",
    ],
)
def test_a_missing_folder_is_named_and_no_hub_is_asked(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(_reference: str) -> Path:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr("scout_core.engine.loading.hub_folder", asked)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    with pytest.raises(UnknownModelError, match=r"folder /.* is missing") as caught:
        Engine.load(EngineOptions(reference, device="cpu"))
    assert caught.value.details["model"] == reference


def test_other_families_are_refused_by_name(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text()) | {"model_type": "gpt2"}
    (copied / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModelError, match="gpt2"):
        tiny_engine(copied)


def test_weights_that_could_run_code_are_refused(copied: Path) -> None:
    (copied / "model.safetensors").rename(copied / "pytorch_model.bin")
    with pytest.raises(UnknownModelError, match="safetensors"):
        tiny_engine(copied)


@pytest.mark.parametrize("missing", ["config.json", "tokenizer.json"])
def test_a_folder_without_a_needed_file_is_refused(copied: Path, missing: str) -> None:
    (copied / missing).unlink()
    with pytest.raises(UnknownModelError):
        tiny_engine(copied)


@pytest.mark.parametrize("name", ["layers", "block_tokens", "threads", "context_limit_tokens"])
def test_options_below_one_are_refused(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(SettingsError, match=name):
        EngineOptions("x", **options)


@pytest.mark.parametrize(
    ("machine", "features", "has_unit"),
    [
        ("x86_64", {"avx2", "avx512_bf16"}, False),
        ("x86_64", {"avx512_bf16", "amx_tile", "amx_bf16"}, True),
        ("aarch64", {"asimd", "bf16"}, True),
        ("aarch64", {"asimd"}, False),
        ("x86_64", set[str](), False),
    ],
)
def test_only_matrix_units_make_bfloat16_the_choice(
    machine: str, features: set[str], has_unit: bool
) -> None:
    assert has_bf16_matrix_unit(machine, features) is has_unit


def test_a_named_numeric_type_is_taken_as_it_is() -> None:
    cpu = torch.device("cpu")
    assert choose_dtype("float32", cpu) is torch.float32
    assert choose_dtype("bfloat16", cpu) is torch.bfloat16
    assert choose_device("cpu") == cpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="this host has a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_in_silence() -> None:
    with pytest.raises(SettingsError, match="no GPU"):
        choose_device("cuda")
