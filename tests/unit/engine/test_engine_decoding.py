"""Answers: sampled reproducibly, ended where they should, independent of each other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from scout_core.engine import Decoder, Engine, SamplingOptions
from scout_core.engine.decoding import Sampler
from scout_core.engine.detokenizer import REPLACEMENT, Detokenizer
from scout_core.errors import ContextTooLongError, EmptyInputError
from scout_core.protocol.answer import FinishReason
from tests.support.tiny_models import WINDOW_TOKENS, random_tokens, tiny_tokenizer

STOP = 1


def scripted(script: Sequence[int], sampling: SamplingOptions, room: int = 100) -> Decoder:
    """A decoder whose model always says the next id of a script."""
    remaining = iter(script)

    def run(tokens: Sequence[int]) -> torch.Tensor:
        assert tokens
        return torch.nn.functional.one_hot(torch.tensor(next(remaining)), 320).float()

    return Decoder(run, [5], sampling, frozenset({STOP}), Detokenizer(tiny_tokenizer()), room)


def drain(decoder: Decoder) -> list[int]:
    ids: list[int] = []
    while (token := decoder.step()) is not None:
        assert token.index == len(ids)
        ids.append(token.token_id)
    return ids


def answer(engine: Engine, seed: int, sampling: SamplingOptions) -> list[int]:
    cache = engine.new_cache()
    engine.prefill(cache, random_tokens(engine, 30, seed))
    return drain(engine.decoder(cache, random_tokens(engine, 9, seed + 1), sampling))


def test_decoding_ends_before_a_stop_token() -> None:
    decoder = scripted([20, 21, STOP, 22], SamplingOptions(max_tokens=10))
    assert drain(decoder) == [20, 21]
    assert decoder.finish_reason is FinishReason.END_OF_TEXT
    assert decoder.step() is None


def test_decoding_ends_at_the_limit_without_running_the_model_again() -> None:
    decoder = scripted([20, 21], SamplingOptions(max_tokens=2))
    assert drain(decoder) == [20, 21]
    assert decoder.finish_reason is FinishReason.MAX_TOKENS


def test_decoding_ends_where_the_window_does() -> None:
    decoder = scripted([20, 21, 22], SamplingOptions(max_tokens=10), room=3)
    assert len(drain(decoder)) == 3
    assert decoder.finish_reason is FinishReason.MAX_TOKENS


def test_an_engine_decodes_up_to_its_last_position(llama: Engine) -> None:
    cache = llama.new_cache()
    llama.prefill(cache, random_tokens(llama, WINDOW_TOKENS - 4))
    sampling = SamplingOptions(temperature=2.0, max_tokens=50)
    decoder = llama.decoder(cache, random_tokens(llama, 2), sampling)
    assert len(drain(decoder)) <= 3
    with pytest.raises(ContextTooLongError):
        llama.decoder(cache, random_tokens(llama, 5), SamplingOptions())
    with pytest.raises(EmptyInputError):
        llama.decoder(cache, [], SamplingOptions())


def test_equal_seeds_give_equal_answers_and_others_do_not(llama: Engine) -> None:
    def sampled(seed: int) -> list[int]:
        return answer(llama, 3, SamplingOptions(temperature=1.5, seed=seed, max_tokens=12))

    assert sampled(7) == sampled(7)
    assert len({tuple(sampled(seed)) for seed in range(4)}) > 1


def test_sampling_leaves_the_global_random_source_alone(llama: Engine) -> None:
    state = torch.random.get_rng_state()
    answer(llama, 3, SamplingOptions(temperature=1.0, max_tokens=3))
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_nucleus_excludes_what_lies_beyond_its_mass() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()

    def drawn(top_p: float) -> set[int]:
        sampler = Sampler(SamplingOptions(temperature=1.0, top_p=top_p, seed=1))
        return {sampler.choose(logits) for _ in range(300)}

    assert drawn(0.4) == {0}
    assert drawn(0.6) == {0, 1}
    assert drawn(1.0) == {0, 1, 2, 3}


def test_a_greedy_sampler_takes_the_first_of_the_highest() -> None:
    assert Sampler(SamplingOptions()).choose(torch.tensor([0.0, 2.0, 2.0])) == 1


def test_interleaved_answers_are_the_answers_given_alone(llama: Engine) -> None:
    sampling = SamplingOptions(temperature=0.8, seed=5, max_tokens=10)
    alone = [answer(llama, seed, sampling) for seed in range(8)]
    decoders: list[Decoder] = []
    for seed in range(8):
        cache = llama.new_cache()
        llama.prefill(cache, random_tokens(llama, 30, seed))
        decoders.append(llama.decoder(cache, random_tokens(llama, 9, seed + 1), sampling))
    together: list[list[int]] = [[] for _ in decoders]
    for _ in range(10):
        for decoder, ids in zip(decoders, together, strict=True):
            token = decoder.step()
            if token is not None:
                ids.append(token.token_id)
    assert together == alone


def test_two_answers_over_one_cache_do_not_meet(llama: Engine) -> None:
    cache = llama.new_cache()
    llama.prefill(cache, random_tokens(llama, 30))
    tails = [random_tokens(llama, 9, seed) for seed in (1, 2)]
    sampling = SamplingOptions(max_tokens=8)
    alone = [drain(llama.decoder(cache, tail, sampling)) for tail in tails]
    first, second = (llama.decoder(cache, tail, sampling) for tail in tails)
    together: tuple[list[int], list[int]] = ([], [])
    for _ in range(9):
        for decoder, ids in zip((first, second), together, strict=True):
            token = decoder.step()
            if token is not None:
                ids.append(token.token_id)
    assert list(together) == alone
    assert cache.length == 30


@pytest.mark.parametrize(
    "text", ["naïve café", "日本語のテキスト", "🙂🙃 ok", " leading", "a\n\nb"]
)
def test_pieces_never_hold_half_a_character_and_join_to_the_text(text: str) -> None:
    tokenizer = tiny_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = [detokenizer.push(token_id) for token_id in ids]
    assert REPLACEMENT not in "".join(pieces)
    assert "".join(pieces) == text
    assert len(ids) > 1


def test_an_unfinished_character_at_the_end_is_never_shown() -> None:
    tokenizer = tiny_tokenizer()
    detokenizer = Detokenizer(tokenizer)
    ids = tokenizer.encode("ok 🙂", add_special_tokens=False).ids[:-1]
    assert "".join(detokenizer.push(token_id) for token_id in ids) == "ok "
