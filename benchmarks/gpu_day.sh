#!/usr/bin/env bash
# What is to be measured where a GPU is at hand, in ten minutes: benchmarks/gpu_day.sh OUT [--tiny]
#
# Writes OUT/<part>.json and OUT/gpu_day.md, a table with the name of the card. A part that fails or takes too long costs itself alone.
#   scoring   images a second by Inception and CLIP, and how far their features are from those of the CPU
#   step      a GRPO step of a 2B-class Qwen2.5-VL with random weights: TRL's trainer, and here without and with shared prefixes
#   vllm      the tests of the engine against vLLM, where it is installed
# --tiny runs every part on the CPU with tiny models, to check the script. PYTHON names the interpreter.
set -u
cd "$(dirname "$0")/.."
out=${1:?usage: benchmarks/gpu_day.sh OUT [--tiny]}
python=${PYTHON:-.venv/bin/python}
export PYTHONPATH=$PWD
mkdir -p "$out"
scoring=(--device cuda --images 1024) step=(--device cuda --size 2b --turns 1 --steps 3) patience=1
if [ "${2:-}" = --tiny ]; then scoring=(--images 2 --repeats 1) step=(--size tiny --turns 1 --steps 2) patience=3; fi

part() { # name, seconds, command
    local name=$1 limit=$2
    shift 2
    timeout $((limit * patience)) "$@" >"$out/$name.json" 2>"$out/$name.log" && return
    echo "{\"failed\": \"exit code $?, see $name.log\"}" >"$out/$name.json"
}

part scoring 150 "$python" benchmarks/gpu_scoring.py "${scoring[@]}"
part step 300 "$python" benchmarks/group_price.py "${step[@]}"
if "$python" -c "import vllm" 2>/dev/null; then
    part vllm 140 sh -c "'$python' -m pytest -q tests/rollouts/test_vllm_engine.py >&2 && echo '{\"passed\": true}'"
else
    echo '{"failed": "vLLM is not installed"}' >"$out/vllm.json"
fi

"$python" - "$out" <<'END' | tee "$out/gpu_day.md"
import json, sys
from pathlib import Path

found = {name: json.loads((Path(sys.argv[1]) / f"{name}.json").read_text() or "{}") for name in ("scoring", "step", "vllm")}
scoring, step = found["scoring"], found["step"]
print(f"{scoring.get('device') or step.get('hardware')}, torch {scoring.get('torch') or step.get('torch')}\n")
print("| part | figure |\n|---|---|")
for name, rates in scoring.get("images_per_second", {}).items():
    print(f"| images a second, {name}, decode excluded | {rates['decode excluded']} |")
for name, far in scoring.get("difference_to_cpu", {}).items():
    print(f"| features of {name}, largest difference to the CPU's as a share of their norm | {far:.2g} |")
for side, words in (("trl", "TRL"), ("rows", "here, shared_prefix: false"), ("rsw", "here")):
    if side in step:
        print(f"| a GRPO step, {words}: generation, update, whole | " + ", ".join(f"{step[side][k]:.2f} s" for k in ("generation", "update", "step")) + " |")
for name, what in found.items():
    if "failed" in what:
        print(f"| {name} | {what['failed']} |")
if found["vllm"].get("passed"):
    print("| vllm | the tests of the engine pass |")
END
