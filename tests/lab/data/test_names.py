"""Files are read under the names that people give them: links, folders, what a folder leaves out, permissions."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lab.data import DataConfig, DataError
from lab.data.documents import Skipped
from lab.data.local import local_source


def read(*source: Path | str, field: str = "text") -> tuple[list[str], Skipped]:
    skipped = Skipped()
    found = local_source(DataConfig(source=tuple(map(str, source)), field=field)).documents(skipped)
    return [document.text for document in found], skipped


def lines(texts: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def cached(folder: Path, name: str, content: bytes) -> Path:
    """A file as a hub cache keeps it: snapshots/REVISION/NAME, a relative link to blobs/SHA256."""
    blob = folder / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    link = folder / "snapshots" / "revision" / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def test_a_hub_cache_reads_like_a_copy_of_it(tmp_path: Path) -> None:
    import gzip

    texts = [f"text {number}" for number in range(6)]
    cached(tmp_path, "data/train-0.jsonl", lines(texts[:2]))
    cached(tmp_path, "data/train-1.jsonl.gz", gzip.compress(lines(texts[2:4])))
    pq.write_table(pa.table({"text": texts[4:]}), tmp_path / "table")
    cached(tmp_path, "data/train-2.parquet", (tmp_path / "table").read_bytes())
    folder = tmp_path / "snapshots" / "revision" / "data"
    for source in (folder, f"{folder}/*", f"{tmp_path}/snapshots/**/*-?.*"):
        assert read(source) == (texts, {})
    for path in sorted(folder.iterdir()):
        assert len(read(path)[0]) == 2
    files = local_source(DataConfig(source=(str(folder),))).files
    assert [path.name for path in files] == ["train-0.jsonl", "train-1.jsonl.gz", "train-2.parquet"]


def test_a_link_into_a_store_keeps_its_own_suffix(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "3f9a").write_bytes(lines(["a", "b"]))
    (tmp_path / "notes.jsonl").symlink_to("store/3f9a")
    (tmp_path / "again.jsonl").symlink_to("notes.jsonl")
    assert read(tmp_path / "notes.jsonl")[0] == read(tmp_path / "again.jsonl")[0] == ["a", "b"]


def test_a_linked_folder_is_read_like_its_copy_and_a_circle_once(tmp_path: Path) -> None:
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    for folder, count in ((corpus, 4), (elsewhere / "deep", 6)):
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number}.txt").write_text(f"{folder.name} {number}")
    (corpus / "part2").symlink_to(elsewhere)
    assert len(read(f"{corpus}/**/*.txt")[0]) == 10
    assert sorted(read(corpus)[0]) == sorted(read(f"{corpus}/**/*.txt")[0])
    (elsewhere / "deep" / "up").symlink_to(corpus)
    (corpus / "self").symlink_to(".")
    assert len(read(corpus)[0]) == 10
    only_links = tmp_path / "links"
    only_links.mkdir()
    (only_links / "a").symlink_to(elsewhere / "deep")
    assert len(read(only_links)[0]) == 10


def test_a_folder_says_what_it_leaves_out(tmp_path: Path) -> None:
    left = {
        "hidden file or folder": [".gitattributes"],
        "metadata of a data set": ["dataset_info.json", "dataset_infos.json", "state.json"],
        "about the data": ["README.md", "README_zh.md", "LICENSE", "license.txt"],
        "unsupported file type": ["table.csv", "data-00000-of-00001.arrow", "a.tar.gz", "b.tgz"],
    }
    for name in [name for names in left.values() for name in names]:
        (tmp_path / name).write_text("{}")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    with pytest.raises(
        DataError, match=r"no file of text to train on; left out: .*3 metadata of a data set \(first da"
    ):
        read(tmp_path)
    (tmp_path / "readable.md").write_text("read me")
    texts, skipped = read(tmp_path)
    assert texts == ["read me"]
    assert skipped == {reason: len(names) for reason, names in left.items()} | {"link that leads nowhere": 1}
    assert skipped.first["about the data"] == "LICENSE"
    assert read(tmp_path / "README.md")[0] == ["{}"]


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    (tmp_path / "lost.jsonl").symlink_to("../cache/ab/cdef")
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(DataError, match=r"lost\.jsonl: a link to \.\./cache/ab/cdef, which is not there"):
        read(tmp_path / "lost.jsonl")
    with pytest.raises(DataError, match=r"circle: a link to circle, which is not there"):
        read(tmp_path / "circle")


WITHOUT_RIGHTS = """
import ctypes, sys
header, nothing = (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)()
assert ctypes.CDLL(None).capset(header, nothing) == 0  # then root obeys modes like everybody
from lab.data import DataConfig, DataError
from lab.data.documents import Skipped
from lab.data.local import local_source
try:
    source = local_source(DataConfig(source=(sys.argv[1],)))
    source.fingerprint(progress=False)
    list(source.documents(Skipped()))
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("closed", ["folder", "folder/inner", "folder/inner/a.jsonl", "folder/inner/b.parquet"])
@pytest.mark.parametrize("named", ["folder", "itself"])
def test_what_may_not_be_read_is_told_as_that(tmp_path: Path, closed: str, named: str) -> None:
    inner = tmp_path / "folder" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.jsonl").write_bytes(lines(["a"]))
    pq.write_table(pa.table({"text": ["b"]}), inner / "b.parquet")
    (tmp_path / closed).chmod(0)
    source = tmp_path / ("folder" if named == "folder" else closed)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS, str(source)], capture_output=True, text=True, check=False
    )
    (tmp_path / closed).chmod(0o755)
    assert done.stdout.startswith(f"--data.source {tmp_path / closed}: cannot be read: Permission denied"), done
