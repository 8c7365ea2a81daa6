"""Bad files give an error that says what to do, or a counted skip."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data import DataConfig, DataError, load_tokenizer, prepare
from lab.data.documents import Skipped
from lab.data.local import local_source
from lab.data.sources import resolve_source


def read(config: DataConfig) -> tuple[list[str], dict[str, int]]:
    skipped = Skipped()
    return [document.text for document in local_source(config).documents(skipped)], dict(skipped)


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def records(path: Path, *values: object) -> str:
    return write(path, "".join(json.dumps(value) + "\n" for value in values))


def test_unusable_text_files_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "\ufeffgood")
    write(tmp_path / "b.txt", "")
    write(tmp_path / "c.txt", " \n\t")
    write(tmp_path / "d.txt", b"caf\xe9")
    write(tmp_path / "e.zip", b"PK")
    write(tmp_path / ".hidden", "hidden")
    texts, skipped = read(DataConfig(source=(str(tmp_path),)))
    assert texts == ["good"]
    assert skipped == {"empty": 2, "invalid UTF-8": 1, "unsupported file type": 1, "hidden file or folder": 1}


def test_nothing_usable_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", "")
    write(tmp_path / "b.txt", b"\xff")
    with pytest.raises(DataError, match="no usable document; skipped: 1 empty, 1 invalid UTF-8"):
        read(DataConfig(source=(str(tmp_path),)))


def test_text_units(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"one\ntwo\n\n  \nthree \xff\r\n\r\nfour\r\n")
    assert read(DataConfig(source=(path,), text_unit="paragraph")) == (
        ["one\ntwo", "four"],
        {"invalid UTF-8": 1},
    )
    assert read(DataConfig(source=(path,), text_unit="line")) == (
        ["one", "two", "four"],
        {"invalid UTF-8": 1},
    )


def test_records_are_checked_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records(path, {"text": "good"}, {"text": 3}, {"body": "x"}, {"text": None}, {"text": " "}, {"text": "\ud800"})
    with path.open("ab") as file:
        file.write(b'\n{"text": "caf\xe9"}\n{"text": "last"}')
    texts, skipped = read(DataConfig(source=(str(path),)))
    assert texts == ["good", "last"]
    assert skipped == {"not a string": 2, "no field 'text'": 1, "empty": 1, "invalid UTF-8": 2}


def test_a_wrong_field_lists_those_that_exist(tmp_path: Path) -> None:
    path = records(tmp_path / "a.jsonl", {"txet": "x", "url": "y"})
    with pytest.raises(
        DataError, match=r"a\.jsonl:1: no field 'text' \(--data\.field\).*'txet', 'url'; did you mean 'txet'"
    ):
        read(DataConfig(source=(path,)))
    table = pa.table({"content": ["x"], "id": [1]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: no field 'contents'.*did you mean 'content'"):
        read(DataConfig(source=(str(tmp_path / "a.parquet"),), field="contents"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "x"}\n{"text": "y', r":2: not valid JSON .*incomplete download"),
        ('["x"]', r":1: a JSON str, not an object"),
        ('{"text": "x"}\n3', r":2: a JSON int, not an object"),
    ],
)
def test_broken_lines_name_file_and_line(tmp_path: Path, content: str, said: str) -> None:
    path = write(tmp_path / "a.jsonl", content)
    with pytest.raises(DataError, match=rf"a\.jsonl{said}"):
        read(DataConfig(source=(path,)))


def test_compressed_records_and_damage(tmp_path: Path) -> None:
    whole = gzip.compress(json.dumps({"text": "x" * 1000}).encode())
    assert read(DataConfig(source=(write(tmp_path / "a.json.gz", whole),)))[0] == ["x" * 1000]
    for name, content in (
        ("cut.jsonl.gz", whole[:-12]),
        ("not.txt.gz", b"plain"),
        ("bad.jsonl.xz", b"plain"),
    ):
        with pytest.raises(DataError, match=rf"{name}: damaged"):
            read(DataConfig(source=(write(tmp_path / name, content),)))


def test_parquet(tmp_path: Path) -> None:
    good = pa.table({"text": pa.array(["a", None, "", "b"]).dictionary_encode()})
    pq.write_table(good, tmp_path / "good.parquet")
    texts, skipped = read(DataConfig(source=(str(tmp_path / "good.parquet"),)))
    assert texts == ["a", "b"] and skipped == {"not a string": 1, "empty": 1}
    not_utf8 = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")])
    pq.write_table(pa.table({"text": pa.concat_arrays([not_utf8, pa.array(["c"])])}), tmp_path / "bad.parquet")
    assert read(DataConfig(source=(str(tmp_path / "bad.parquet"),))) == (["c"], {"invalid UTF-8": 1})
    with pytest.raises(DataError, match="not a readable Parquet file"):
        read(DataConfig(source=(write(tmp_path / "no.parquet", "text"),)))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("wikpedia.txt", "no such file in .*did you mean 'wikipedia.txt'"),
        ("*.md", "no file matches this pattern"),
        ("nowhere/a.txt", "no folder"),
        ("empty", "holds no file"),
        ("a.zip", r"\.zip files are not read"),
    ],
)
def test_missing_sources(tmp_path: Path, entry: str, said: str) -> None:
    write(tmp_path / "wikipedia.txt", "x")
    write(tmp_path / "a.zip", "x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=rf"--data\.source .*{said}"):
        resolve_source(DataConfig(source=(f"{tmp_path}/{entry}",)))


def test_files_are_taken_once_and_in_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        write(tmp_path / name, name)
    assert read(DataConfig(source=(f"{tmp_path}/*.txt", str(tmp_path))))[0] == ["a.txt", "b.txt", "c.md"]


def test_flags_that_the_source_does_not_use(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "x")
    with pytest.raises(DataError, match=r"--data\.subset en: only Hugging Face data sets"):
        resolve_source(DataConfig(source=(path,), subset="en"))
    with pytest.raises(DataError, match=r"--data\.heldout-split test: only"):
        resolve_source(DataConfig(source=(path,), heldout_split="test"))
    with pytest.raises(DataError, match="must be the only source"):
        resolve_source(DataConfig(source=(path, "allenai/c4")))


def test_too_little_text(tmp_path: Path) -> None:
    one = DataConfig(
        source=(write(tmp_path / "a.txt", "only one\n" * 50),),
        tokenizer="bpe:257",
        cache_dir=str(tmp_path / "cache"),
    )
    with pytest.raises(DataError, match=r"--data\.(tokenizer|source).*--data\.text-unit line"):
        prepare(one, load_tokenizer(one, progress=False), seed=0, progress=False)
    lines = "\n".join(f"line {n}" for n in range(40))
    few = DataConfig(
        source=(write(tmp_path / "b.txt", lines),),
        text_unit="line",
        tokenizer="bpe:257",
        block_length=1000,
        cache_dir=str(tmp_path / "cache"),
    )
    with pytest.raises(DataError, match=r"do not fill one block of 1000.*--data\.block-length"):
        prepare(few, load_tokenizer(few, progress=False), seed=0, progress=False)
