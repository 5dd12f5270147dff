"""The tables that ``scout bench codec`` prints without ``--json``."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from scout_core.evaluation.codec_answers import AnswerRow
from scout_core.evaluation.codec_crossover import CrossoverRow
from scout_core.evaluation.codec_speed import SpeedRow
from scout_core.evaluation.codec_study import QualityRow

TEXT_COLUMNS = ("codec", "origin")


def quality_table(rows: Sequence[QualityRow]) -> Table:
    """Rate and distortion; the last column compares sizes at equal KL divergence."""
    columns = ("codec", "origin", "tokens", "n", "ratio", "bits/element", "KL", "95 %")
    columns = (*columns, "same top-1", "× ours")
    table = _table("KV codecs: rate and distortion, side information counted", columns)
    for row in rows:
        table.add_row(
            row.codec,
            row.origin,
            f"{row.context_tokens:,}",
            str(row.contexts),
            f"{row.ratio:.2f}",
            f"{row.bits_per_element:.2f}",
            f"{row.kl:.5f}",
            "" if row.kl_low is None else f"{row.kl_low:.5f}–{row.kl_high:.5f}",
            f"{row.top1_agreement:.3f}",
            "" if row.times_ours is None else f"{row.times_ours:.2f}",
        )
    return table


def answer_table(rows: Sequence[AnswerRow]) -> Table:
    """F1 of answers from decoded caches."""
    title = f"Answers: n = {rows[0].n}, F1 {rows[0].exact_f1:.3f} from the exact cache"
    table = _table(title, ("codec", "origin", "tokens", "ratio", "F1", "of exact", "95 %", "p"))
    for row in rows:
        table.add_row(
            row.codec,
            row.origin,
            f"{row.context_tokens:,}",
            f"{row.ratio:.2f}",
            f"{row.f1:.3f}",
            f"{row.f1_ratio:.3f}",
            f"{row.f1_ratio_low:.3f}–{row.f1_ratio_high:.3f}",
            f"{row.p_value:.3f}",
        )
    return table


def speed_table(rows: Sequence[SpeedRow]) -> Table:
    """Encode, decode, copy."""
    columns = ("codec", "tokens", "threads", "ratio", "encode", "decode", "memory copy", "Gbit/s")
    table = _table("Speed, GB/s of bf16 cache; coding pays on links below", columns)
    for row in rows:
        table.add_row(
            row.codec,
            f"{row.context_tokens:,}",
            str(row.threads),
            f"{row.ratio:.2f}",
            f"{row.encode_gb_s:.2f}",
            f"{row.decode_gb_s:.2f}",
            f"{row.copy_gb_s:.2f}",
            f"{row.pays_below_gbit_s:.1f}",
        )
    return table


def crossover_table(rows: Sequence[CrossoverRow]) -> Table:
    """Which codec is there first on which link."""
    columns = ("tokens", "threads", "link Gbit/s", "raw ms", "exact", "ms", "fastest", "ms")
    table = _table("First to be decoded: encoding overlaps the transfer, decoding follows", columns)
    for row in rows:
        table.add_row(
            f"{row.context_tokens:,}",
            str(row.threads),
            f"{row.link_gbit_s:g}",
            f"{row.raw_ms:.1f}",
            row.exact,
            f"{row.exact_ms:.1f}",
            row.fastest,
            f"{row.fastest_ms:.1f}",
        )
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title)
    for name in columns:
        table.add_column(name, justify="left" if name in TEXT_COLUMNS else "right")
    return table
