#!/bin/sh
# Every quality figure of the bundled pair in one go, on a host with a GPU (a few minutes):
#
#   PYTHON=.venv/bin/python tests/bench/quality_visit.sh DATA OUT
#
# DATA holds qa_short and qa_long; OUT receives the held-out questions, a JSON document per study
# and the records behind it. A study that was stopped goes on when this is run again.
set -eu
data=$1
out=$2
python=${PYTHON:-python3}
pools="--pool SQuAD-style=squad_v2_dev_half,xquad.en --pool NQ=nq_open_oracle"
multi_hop="--pool HotpotQA=hotpotqa_distractor_dev,hotpotqa_distractor_train --pool MuSiQue=musique,musique_train"

scout() {
  "$python" -c 'from scout_core.cli.main import main; main()' "$@"
}

mkdir -p "$out"
"$python" -m scout_core.evaluation.training.held_out "$data" "$out"

# Short questions, every mode, selector, retention and execution; the two models' caches.
# shellcheck disable=SC2086
scout eval quality --data "$out/test.jsonl" --n 638 $pools --kv-cosine 50 --json \
  --records "$out/test-records.jsonl" >"$out/quality.json"

# Long contexts, down to a twentieth of the context.
# shellcheck disable=SC2086
scout eval quality --data "$out/long.jsonl" --n 201 $multi_hop --retention 0.5,0.25,0.1,0.05 --json \
  --records "$out/long-records.jsonl" >"$out/long.json"

# Is an answer better with less context? Untuned and tuned model, three tasks.
"$python" -m tests.bench.bench_attention_focusing "$data" --n 200 >"$out/focusing.json"

# What a scout request costs.
scout bench engine --json >"$out/engine.json"
