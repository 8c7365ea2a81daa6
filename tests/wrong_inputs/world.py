"""What lies about: a run of training, a judge's run, and files and folders of every wrong kind."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import shutil
from pathlib import Path

from lab import cli

FLAGS = (
    "--model.preset tiny-2x32 --data.source docs.jsonl --data.tokenizer bpe:300 --data.block-length 16 "
    "--train.steps 2 --train.micro-batch 2 --train.global-batch 2"
)
"""Of a run that takes a moment."""
JUDGE = "--judge simulated:gap=1,sample=0.7,role=1,review=1 --no-cache"

TEXTS = {
    "empty.jsonl": "",
    "empty.json": "",
    "file": "x",
    "small.jsonl": '{"text": "hello there"}\n',
    "notext.jsonl": '{"content": "hello there"}\n' * 3,
    "blank.jsonl": "\n\n\n",
    "nobody.jsonl": '{"prompt": "a", "chosen": "b", "rejected": "c"}\n',
    "csv.jsonl": "query,response1,response2\na,b,c\n",
    "array.jsonl": '[{"query": "a", "response1": "b", "response2": "c"}]',
    "label.jsonl": '{"query": "a", "response1": "b", "response2": "c", "human": "left"}\n',
    "fake.jsonl.gz": '{"text": "not packed"}\n',
    "fake.parquet": "hello\n",
    "fake.npy": "hello\n",
    "other.json": '{"name": "left-pad", "version": "1.0.0"}',
    "list.json": "[1, 2, 3]",
    "list.yaml": "- train\n- steps\n",
    "tabs.yaml": "train:\n\tsteps: 2\n",
    "twice.yaml": "train:\n  steps: 2\n  steps: 3\n",
    "jtwice.yaml": "data: pairs.jsonl\ndata: docs.jsonl\n",
    "prices.yaml": "m: {input: 1, output: 2}\nm: {input: 3, output: 4}\n",
    "misspelt.yaml": "train:\n  stpes: 2\n",
    "section.yaml": "trian:\n  steps: 2\n",
    "scalar.yaml": "train: 300\n",
    "valuetype.yaml": "train:\n  steps: [2, 3]\n",
    "two.yaml": "train:\n  steps: 2\n---\ntrain:\n  steps: 3\n",
    "alias.yaml": "train: &a\n  <<: *a\n",
    "jmisspelt.yaml": "data: pairs.jsonl\nnetwork:\n  widht: 2\n",
    "broken.py": "def (\n",
    "open.j2": "{% block roles %}{{ nope \n",
    "bert/config.json": '{"model_type": "bert"}',
    "unknown/config.json": '{"model_type": "llamma"}',
    "cut/config.json": '{"model_type": "llama"',
    "jempty/verdicts.jsonl": "",
    "jother/verdicts.jsonl": '{"a": 1}\n',
}


def build(folder: Path) -> None:
    """Make it all; the working folder stays what it is."""
    folder.mkdir()
    texts = [f"Document {n}: the cat number {n} sat on mat {n * 7 % 13} and saw bird {n % 5}. " * 4 for n in range(60)]
    (folder / "docs.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pairs = [
        {
            "id": f"s{n}",
            "query": f"question {n}?",
            "response1": f"first {n}",
            "response2": f"second {n}",
            "human": n % 3,
        }
        for n in range(8)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()):
        assert cli.main([*f"pretrain --run-dir run {FLAGS} --data.heldout-fraction 0.2 --eval.blocks 4".split()]) == 0
        assert cli.main(["diagnose", "run", "--latest", "--only", "spectra"]) == 0
        assert cli.main(f"judge run --data pairs.jsonl {JUDGE} --out jrun".split()) == 0
    for name, text in TEXTS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    for name in ("empty", "folder.jsonl", "half_run"):
        (folder / name).mkdir()
    shutil.copy(folder / "run/config.yaml", folder / "half_run")
    (folder / "binary.jsonl").write_bytes(bytes(range(256)) * 40)
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress((folder / "docs.jsonl").read_bytes())[:150])
    (folder / "utf16.jsonl").write_text((folder / "pairs.jsonl").read_text(), encoding="utf-16")
    (folder / "utf16.yaml").write_text("train:\n  steps: 2\n", encoding="utf-16")
    record = folder / "run/diagnostics/step-000002.json"
    (folder / "cut.json").write_text(record.read_text()[:300])
    (folder / "nowhere").symlink_to("gone")
    (folder / "loop").symlink_to("loop")
    shutil.copytree(folder / "jrun", folder / "strangers")
    lines = (folder / "jrun/verdicts.jsonl").read_text().splitlines()
    strangers = [json.loads(line) | {"id": f"o{number}", "digest": "x"} for number, line in enumerate(lines)]
    (folder / "strangers/verdicts.jsonl").write_text("".join(json.dumps(record) + "\n" for record in strangers))
    os.utime(folder)
