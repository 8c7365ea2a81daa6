"""Text and JSON in the layouts, encodings and archives in which they lie about."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from lab.data import DataConfig, DataError
from lab.data.documents import Skipped
from lab.data.local import local_source
from lab.data.opening import encoding_of


def read(path: Path, content: bytes | str, **settings: str) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source = local_source(DataConfig(source=(str(path),), **settings))
    return [document.text for document in source.documents(Skipped())]


RECORDS = [{"text": "one, with a line\nin it", "id": 1}, {"text": "zwei\u2028\u2029\x85", "id": 2}, {"text": "三"}]
TEXTS = [record["text"] for record in RECORDS]


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize(
    "layout",
    ["lines", "crlf", "cr", "array", "array of lines", "pretty array", "pretty objects", "one line", "arrays"],
)
def test_json_in_any_layout(tmp_path: Path, layout: str, ascii_only: bool) -> None:
    one = [json.dumps(record, ensure_ascii=ascii_only) for record in RECORDS]
    pretty = [json.dumps(record, indent=2, ensure_ascii=ascii_only) for record in RECORDS]
    content = {
        "lines": "\n".join(one),
        "crlf": "\r\n".join([*one, ""]),
        "cr": "\r".join(one),
        "array": f"[{', '.join(one)}]",
        "array of lines": "[\n" + ",\n".join(one) + "\n]\n",
        "pretty array": json.dumps(RECORDS, indent=2, ensure_ascii=ascii_only),
        "pretty objects": "\n".join(pretty),
        "one line": " ".join(one),
        "arrays": "\n".join(f"[{line}]" for line in one),
    }[layout]
    for suffix in (".json", ".jsonl"):
        assert read(tmp_path / f"a{suffix}", content) == TEXTS
        assert read(tmp_path / f"b{suffix}", "\ufeff" + content) == TEXTS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "x"},\n {"text": "y"', r"a\.json:2: not valid JSON .*cut end"),
        ('{\n "text": "x",\n "id": 1', r"a\.json:3: not valid JSON"),
        ('{"text": "x"}\n{\n"text": 1}', r"a\.json:2: not valid JSON"),
        ('[\n{"text": "x"},\n[1]\n]', r"a\.json:1: a JSON list, not an object"),
        ('{"rows": [{"text": "x"}]}', r"a\.json:1: no field 'text'.*'rows'"),
        ("[" * 200_000, r"a\.json:1: JSON that is nested too deeply"),
        ('{"text": "x"}\n{"text": "y", "deep": ' + "[" * 200_000, r"a\.json:2: JSON that is nested too deeply"),
    ],
)
def test_broken_json_names_the_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(tmp_path / "a.json", content)


def test_integers_of_any_length(tmp_path: Path) -> None:
    long = '{"text": "x", "id": ' + "7" * 5000 + "}"
    assert read(tmp_path / "a.jsonl", f"{long}\n{long}\n") == ["x", "x"]
    assert read(tmp_path / "b.json", f"[{long},\n{long}]") == ["x", "x"]


def test_fields_inside_of_others(tmp_path: Path) -> None:
    records = [{"meta": {"a": {"text": "x"}}}, {"meta": {"a": None}}, {"meta": {"a": {"text": "y"}}, "id": 1}]
    lines = "\n".join(map(json.dumps, records))
    assert read(tmp_path / "a.jsonl", lines, field="meta.a.text") == ["x", "y"]
    assert read(tmp_path / "b.jsonl", '{"meta.a.text": "z", "meta": {}}', field="meta.a.text") == ["z"]
    with pytest.raises(DataError, match=r"no field 'meta.text'.*'meta', 'meta.a', 'meta.a.text'; did you mean"):
        read(tmp_path / "a.jsonl", lines, field="meta.text")
    table = tmp_path / "c.parquet"
    pq.write_table(pa.table({"id": [1, 2, 3], "meta": [record["meta"] for record in records]}), table)
    assert read(table, table.read_bytes(), field="meta.a.text") == ["x", "y"]
    with pytest.raises(DataError, match=r"no field 'meta.text'.*'meta.a.text'"):
        read(table, table.read_bytes(), field="meta.text")


SAMPLES = {
    "English": "The river is wide.\nIt runs to the sea, and nobody knows why.\n" * 20,
    "Russian": "Река широка, и никто не знает почему.\nОна течёт к морю.\n" * 20,
    "Greek": "Το ποτάμι είναι πλατύ.\nΚανείς δεν ξέρει γιατί.\n" * 20,
    "Hindi": "नदी चौड़ी है।\nकोई नहीं जानता क्यों।\n" * 20,
    "Chinese": "河很宽，没有人知道为什么。\n它流向大海。\n" * 20,
    "Arabic": "النهر واسع.\nلا أحد يعرف لماذا.\n" * 20,
    "emoji": "a \U0001f600 b\n" * 20,
}


@pytest.mark.parametrize("language", SAMPLES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("mark", [True, False])
def test_every_encoding_of_unicode_is_recognised(tmp_path: Path, language: str, encoding: str, mark: bool) -> None:
    text = SAMPLES[language]
    content = (("\ufeff" if mark else "") + text).encode(encoding)
    assert read(tmp_path / "a.txt", content) == [text]
    assert read(tmp_path / "b.txt", content, text_unit="line") == text.splitlines()
    records = "\n".join(json.dumps({"text": line}, ensure_ascii=False) for line in text.splitlines())
    content = (("\ufeff" if mark else "") + records).encode(encoding)
    assert read(tmp_path / "c.jsonl", content) == text.splitlines()
    assert read(tmp_path / "d.jsonl.gz", gzip.compress(content)) == text.splitlines()


def test_what_is_not_text_is_not_taken_for_another_encoding(tmp_path: Path) -> None:
    english = SAMPLES["English"]
    assert encoding_of(english.encode() + b"\0") is None
    assert read(tmp_path / "a.txt", english + "\0 after") == [english + "\0 after"]
    assert encoding_of(bytes(range(256)) * 8) is None
    assert encoding_of(b"\x89PNG\r\n\x1a\n" + bytes(200)) is None
    assert encoding_of(english.encode("latin-1")) is None
    with pytest.raises(DataError, match=r"a\.txt: .*ends within a character"):
        read(tmp_path / "a.txt", english.encode("utf-16")[:-1])


PACKED = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("suffix", PACKED)
def test_archives(tmp_path: Path, suffix: str) -> None:
    pack = PACKED[suffix]
    content = "\n".join(map(json.dumps, RECORDS)).encode()
    path = tmp_path / f"a.jsonl{suffix}"
    assert read(path, pack(content)) == TEXTS
    assert read(path, pack(content[:40]) + pack(content[40:])) == TEXTS  # as parallel packers write
    assert read(tmp_path / f"b.txt{suffix}", pack(SAMPLES["Russian"].encode("utf-16"))) == [SAMPLES["Russian"]]
    several = "".join(json.dumps({"text": f"text {number} " + "x" * number}) + "\n" for number in range(2000)).encode()
    for damaged in (b"plain text", pack(several)[:-9], pack(several)[:200], pack(content) + pack(content)[:9]):
        with pytest.raises(DataError, match=rf"a\.jsonl{suffix}: damaged"):
            read(path, damaged)


def test_zstandard_with_a_long_window_and_through_its_own_stream(tmp_path: Path) -> None:
    content = "\n".join(map(json.dumps, RECORDS)).encode()
    parameters = zstandard.ZstdCompressionParameters(window_log=28, enable_ldm=True)
    assert read(tmp_path / "a.jsonl.zst", zstandard.ZstdCompressor(compression_params=parameters).compress(content))
    with zstandard.open(tmp_path / "b.jsonl.zst", "wb") as file:  # without the size in its head
        file.write(content)
    assert read(tmp_path / "b.jsonl.zst", (tmp_path / "b.jsonl.zst").read_bytes()) == TEXTS
    big = "".join(json.dumps({"text": f"{number} " * 50}) + "\n" for number in range(3000))
    assert len(read(tmp_path / "c.jsonl.zst", PACKED[".zst"](big.encode()))) == 3000


def test_damaged_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"text {number}" for number in range(5000)]}), path)
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:-20], whole[:middle], b"PAR1" + bytes(40) + b"PAR1", whole[:4] + bytes(600) + whole[604:]):
        with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
            read(path, damaged)
