"""Files: empty, cut, of another format under a right suffix, of another tool, in another encoding, with slips."""

from __future__ import annotations

import pytest

ROWS = [
    # what a person thinks; words; exit code; what the line must say, parts between bars
    ("text: nothing in it", "pretrain $RUN --run-dir n --data.source empty.jsonl", 1, "empty.jsonl | it is empty"),
    ("text: bytes", "pretrain $RUN --run-dir n --data.source binary.jsonl", 1, "binary.jsonl:1 | not valid JSON | repair"),
    ("text: no gzip", "pretrain $RUN --run-dir n --data.source fake.jsonl.gz", 1, "damaged .gz | download it again"),
    ("text: half a gzip", "pretrain $RUN --run-dir n --data.source cut.jsonl.gz", 1, "damaged .gz | download it again"),
    ("text: no Parquet", "pretrain $RUN --run-dir n --data.source fake.parquet", 1, "not a readable Parquet file"),
    ("text: a picture", "pretrain $RUN --run-dir n --data.source photo.png", 1, "photo.png | 1 invalid UTF-8"),
    ("text: another field", "pretrain $RUN --run-dir n --data.source notext.jsonl", 1, "--data.field | 'content'"),
    ("text: a package.json", "pretrain $RUN --run-dir n --data.source other.json", 1, "other.json:1 | no field 'text'"),
    ("text: one document", "pretrain $RUN --run-dir n --data.source small.jsonl", 1, "held out | --data.heldout-fraction"),
    ("settings: a list", "pretrain --config list.yaml", 2, "list.yaml: must hold keys and values"),
    ("settings: tabs", "pretrain --config tabs.yaml", 2, "tabs.yaml | line 2, column 1 | indent with spaces"),
    ("settings: a key twice", "pretrain --config twice.yaml", 2, "twice.yaml | line 3 | steps stands twice"),
    ("settings: a key misspelt", "pretrain --config misspelt.yaml", 2, "train.stpes; did you mean train.steps?"),
    ("settings: a section misspelt", "pretrain --config section.yaml", 2, "unknown key trian; did you mean train?"),
    ("settings: a number for a section", "pretrain --config scalar.yaml", 2, "train: must hold keys and values"),
    ("settings: a list for a number", "pretrain --config valuetype.yaml", 2, "valuetype.yaml: train.steps"),
    ("settings: UTF-16", "pretrain --config utf16.yaml", 2, "utf16.yaml | not text in UTF-8 | save it as UTF-8"),
    ("settings: two documents", "pretrain --config two.yaml", 2, "two.yaml | not a YAML file | line 3"),
    ("settings: an alias of itself", "pretrain --config alias.yaml", 2, "alias.yaml | not a YAML file | line 1"),
    ("settings: a judge's", "pretrain --config jrun/config.yaml", 2, "config.yaml: data: must hold keys and values"),
    ("settings: a picture", "pretrain --config photo.png", 2, "photo.png | not text in UTF-8"),
    ("model: an encoder", "pretrain $RUN --run-dir n --model.config bert", 2, "'bert' model | Families: llama"),
    ("model: a type misspelt", "pretrain $RUN --run-dir n --model.config unknown", 2, "model_type 'llamma' | correct it"),
    ("model: half a config", "pretrain $RUN --run-dir n --model.config cut", 2, "--model.config cut | not a valid JSON"),
    ("model: a package.json", "pretrain $RUN --run-dir n --model.config other.json", 2, "other.json | a file | folder"),
    ("model: no weights", "describe bert", 1, "bert holds no checkpoint | name a checkpoint that is whole"),
    ("model: a type misspelt", "describe unknown", 1, "model_type 'llamma' | correct it"),
    ("record: another tool's", "diagnose other.json", 1, "other.json: not a record of depthlab diagnose"),
    ("record: a list", "report list.json", 1, "list.json: not a record of depthlab diagnose"),
    ("record: half of one", "compare run cut.json", 1, "cut.json: not a record of depthlab diagnose"),
    ("record: empty", "prune run --out n --drop 1 --record empty.json", 1, "empty.json: not a record"),
    ("record: without what is needed", "prune run --out n --drop 1 --record run/diagnostics/step-000002.json", 1,
     "--by angular | not in this record"),
    ("tokens: no array", "diagnose run --out n --probe fake.npy", 1, "--probe fake.npy: no token ids"),
    ("pairs: nothing in it", "judge run --judge simulated: --out n --data empty.jsonl", 1, "holds no sample"),
    ("pairs: blank lines", "judge run --judge simulated: --out n --data blank.jsonl", 1, "holds no sample"),
    ("pairs: UTF-16", "judge run --judge simulated: --out n --data utf16.jsonl", 1, "UTF-16 | write it as UTF-8"),
    ("pairs: packed", "judge run --judge simulated: --out n --data cut.jsonl.gz", 1, "gzip; unpack it"),
    ("pairs: an array", "judge run --judge simulated: --out n --data array.jsonl", 1, "a JSON array; write one object"),
    ("pairs: CSV", "judge run --judge simulated: --out n --data csv.jsonl", 1, "2 of 2 lines | line 1: not JSON | mend"),
    ("pairs: of preference tuning", "judge run --judge simulated: --out n --data nobody.jsonl", 1, "query is missing"),
    ("pairs: a label of one's own", "judge run --judge simulated: --out n --data label.jsonl", 1, "line 1: human is 'left'"),
    ("pairs: bytes", "judge run --judge simulated: --out n --data binary.jsonl", 1, "lines refused | --skip-refused"),
    ("settings of a judge: a list", "judge run --config list.yaml", 2, "list.yaml: must hold keys and values"),
    ("settings of a judge: tabs", "judge run --config tabs.yaml", 2, "line 2, column 1 | indent with spaces"),
    ("settings of a judge: a key twice", "judge run --config jtwice.yaml", 2, "line 2 | data stands twice"),
    ("settings of a judge: misspelt", "judge run --config jmisspelt.yaml", 2, "widht; did you mean network.width?"),
    ("settings of a judge: UTF-16", "judge run --config utf16.yaml", 2, "not text in UTF-8 | save it as UTF-8"),
    ("settings of a judge: of training", "judge run --config run/config.yaml", 2, "unknown key run_dir | keys here: data"),
    ("prices: a model twice", "judge run --data pairs.jsonl --judge simulated: --out n --prices prices.yaml", 2,
     "prices.yaml | line 2 | m stands twice"),
    ("prices: a list", "judge run --data pairs.jsonl --judge simulated: --out n --prices list.yaml", 2, "MODEL: {input:"),
    ("families: a key twice", "judge run --data pairs.jsonl --judge simulated: --out n --families twice.yaml", 2,
     "--families twice.yaml | line 3 | steps stands twice"),
    ("template: not closed", "judge run --data pairs.jsonl --judge simulated: --out n --template open.j2", 2,
     "--template open.j2 line 1"),
    ("plug-in: no Python", "judge run --data pairs.jsonl --judge simulated: --out n --plugin broken.py", 2,
     "--plugin broken.py: line 1: SyntaxError"),
    ("script: a picture", "judge run --data pairs.jsonl --judge scripted:photo.png --out n", 2, "photo.png: not UTF-8"),
    ("verdicts: another tool's", "judge show --out jother", 1, "jother/verdicts.jsonl: line 1 is no record of a verdict"),
    ("verdicts: none", "judge annotate jempty", 1, "RUN jempty: no sample with two responses"),
    ("prompts: without a query", "judge pairs --a run/checkpoints/step-000002 --b bert --prompts docs.jsonl --out n "
     "--judge simulated:", 1, "--prompts docs.jsonl: line 1 | 'query'"),
]  # fmt: skip


@pytest.mark.parametrize(("thought", "words", "code", "told"), ROWS, ids=[row[0] for row in ROWS])
def test_a_wrong_file_is_told_in_one_line(thought, words, code, told, refused):
    refused(words, code, told)
