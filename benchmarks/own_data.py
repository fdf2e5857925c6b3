"""The training of docs/training.md on image pairs and questions of one's own, as the page writes it, with its gain.

    python benchmarks/own_data.py OUT

The Python and YAML blocks of the page are run in the folder OUT, then its commands. Prints accuracy on the held-out samples before
and after training with the paired difference, as the training measures it, and as ``rsw compare`` does on four outputs per sample.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
page = (ROOT / "docs/training.md").read_text(encoding="utf-8")
samples, records = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[:2]
teach, sections = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[:2]


def run(*command: str) -> None:
    """One command in the folder, with the interpreter of this one."""
    program = str(Path(sys.executable).with_name(command[0]))
    subprocess.run([program, *command[1:]], cwd=out, check=True, stdout=sys.stderr)


def replaced(config: str, section: str) -> str:
    """The configuration with a top-level section in place of its own."""
    key = section.partition(":")[0]
    return re.sub(rf"^{key}:.*\n(?:[ \t]+.*\n)*", lambda _: section + "\n", config, count=1, flags=re.MULTILINE)


(out / "teach.yaml").write_text(teach, encoding="utf-8")
run("python", "-c", samples + records)
run("rsw", "init", "change_qa")
config = (out / "change_qa.yaml").read_text(encoding="utf-8")
for section in sections.splitlines():
    config = replaced(config, section)
(out / "change_qa.yaml").write_text(config + "out: runs/change_qa\n", encoding="utf-8")
run("rsw", "train", "teach.yaml")
run("rsw", "train", "change_qa.yaml")
changes = json.loads((out / "runs/change_qa/heldout.json").read_text())["changes"]
print("| outputs | accuracy before | after | difference |\n|---|---|---|---|")
for how in ("greedy", "sampled"):
    found = changes[how]["accuracy"]
    difference, interval = found["difference"]["value"], found["difference"]["ci95"]
    told = "[{:+.3f}, {:+.3f}]".format(*interval) if interval else "no interval"
    print(f"| {how} | {found['before']['value']:.3f} | {found['after']['value']:.3f} | {difference:+.3f} {told} |")
sampled = ("--temperature", "1", "--candidates", "4")
for policy, name in (("taught", "before"), ("change_qa", "after")):
    run("rsw", "evaluate", "exact-qa", "--samples", "heldout.jsonl", "--policy", f"runs/{policy}", *sampled, "--out", f"runs/{name}")  # fmt: skip
compare = [str(Path(sys.executable).with_name("rsw")), "compare", "runs/before", "runs/after"]
print(subprocess.run(compare, cwd=out, check=True, capture_output=True, text=True).stdout)
