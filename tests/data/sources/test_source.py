"""Records come from files of every kind, datasets and memory, as often as one likes; what is wrong is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkit.data import Source, open_source, text_source
from darkit.errors import DataError

TEXTS = ["plain", "two\nlines", 'quotes " and, commas', "另一个 🧑‍🚀 é\u0301", "  spaces  "]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    polars.DataFrame(rows).write_csv(path)
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    polars.DataFrame(rows).write_parquet(path)
    return path


TABLES: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "parquet": write_parquet,
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_gives_its_field_row_by_row_each_time(tmp_path: Path, kind: str) -> None:
    rows = [{"number": index, "text": text} for index, text in enumerate(TEXTS)]
    source = open_source(TABLES[kind](tmp_path / f"a.{kind}", rows))
    for _ in range(2):
        assert list(source.texts()) == TEXTS
    assert [record.values for record in source.records()] == [{"text": text} for text in TEXTS]


@pytest.mark.parametrize("kind", TABLES)
def test_a_missing_field_is_said_with_the_file_and_the_fields_there_are(tmp_path: Path, kind: str) -> None:
    path = TABLES[kind](tmp_path / f"a.{kind}", [{"texts": "a", "label": 1}])
    with pytest.raises(DataError) as refused:
        list(open_source(path).records())
    line = ", line 1" if kind == "jsonl" else ""
    assert str(refused.value) == (f"{path}{line}: no field 'text'. Did you mean 'texts'? Available: texts, label.")


def test_a_long_field_of_a_csv_is_read(tmp_path: Path) -> None:
    text = "long " * 100_000
    assert list(open_source(write_csv(tmp_path / "a.csv", [{"text": text}])).texts()) == [text]


@pytest.mark.parametrize(
    ("documents", "wanted"),
    [
        ("file", ["one\ntwo\n\n \nthree\r\n"]),
        ("paragraph", ["one\ntwo", "three"]),
        ("line", ["one", "two", "three"]),
    ],
)
def test_a_text_file_is_a_document_or_has_several(tmp_path: Path, documents: str, wanted: list[str]) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\ntwo\n\n \nthree\r\n")  # with a byte order mark, which is no text
    assert list(open_source(path, documents=documents).texts()) == wanted


def test_a_folder_a_pattern_and_a_list_give_the_same_in_the_same_order(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c/d.txt", ".hidden.txt", ".cache/e.txt", "picture.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    wanted = ["a.txt", "b.txt", "c/d.txt"]
    for where in (tmp_path, f"{tmp_path}/**/[a-d].txt", [tmp_path / name for name in wanted]):
        source = open_source(where)
        assert list(source.texts()) == wanted
        assert [record.file for record in source.records()] == [0, 1, 2]
        assert source.files == tuple(str(tmp_path / name) for name in wanted)


DATASET = datasets.Dataset.from_dict({"text": TEXTS, "label": list(range(5))})


@pytest.mark.parametrize(
    "where",
    [
        DATASET,
        DATASET.with_format("torch"),
        DATASET.to_iterable_dataset(),
        datasets.DatasetDict({"train": DATASET, "test": DATASET.select([0])}),
        [{"text": text} for text in TEXTS],
        text_source(TEXTS),
    ],
    ids=["Dataset", "formatted", "IterableDataset", "DatasetDict", "rows", "source"],
)
def test_datasets_and_memory_are_sources_too(where: Any) -> None:
    source = open_source(where)
    assert list(source.texts()) == list(source.texts()) == TEXTS
    assert len(source.fingerprint()) == 64


def test_load_dataset_is_asked_for_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda **wanted: asked.append(wanted) or DATASET)
    for name in ("own/set", "hf:own/set", "hf:own/set:small", {"path": "own/set", "split": "test", "revision": "1"}):
        assert list(open_source(name, split="dev").texts()) == TEXTS
    assert asked == [
        {"path": "own/set", "split": "dev"},
        {"path": "own/set", "split": "dev"},
        {"path": "own/set", "name": "small", "split": "dev"},
        {"path": "own/set", "split": "test", "revision": "1"},
    ]
    assert open_source("hf:own/set:small").files == ("hf:own/set:small",)


@pytest.mark.parametrize("stream", [False, True])
def test_labels_of_a_dataset_have_their_names(stream: bool) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    source = open_source(data.to_iterable_dataset() if stream else data, fields=("text", "label"))
    for _ in range(2):
        assert [record.values["label"] for record in source.records()] == ["pos", "neg", None]


@pytest.mark.parametrize("streaming", [False, True])
def test_load_dataset_really_loads_what_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, streaming: bool
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    write_jsonl(tmp_path / "rows.json", [{"text": text} for text in TEXTS])
    source = open_source({"path": "json", "data_files": str(tmp_path / "rows.json"), "streaming": streaming})
    assert list(source.texts()) == list(source.texts()) == TEXTS
    assert source.files == ("json",)


def test_a_name_that_the_hub_does_not_know_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, split: str) -> None:
        raise ConnectionError("no network\nand more")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(
        DataError, match=r"There is no file own, and the Hugging Face hub does not give .*: no network$"
    ):
        open_source("hf:own")


def fingerprint(path: Path, **options: Any) -> str:
    return open_source(path, **options).fingerprint()


def test_the_fingerprint_is_of_content_and_options_and_not_of_names(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo")
    first = fingerprint(path)
    assert fingerprint(path, documents="line") != first
    assert fingerprint(path.rename(tmp_path / "b.txt")) == first
    (tmp_path / "b.txt").write_text("one\n\ntwo.")
    assert fingerprint(tmp_path / "b.txt") != first


def test_a_file_that_is_gone_meanwhile_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"a")
    source = open_source(path)
    path.unlink()
    for ask in (source.fingerprint, lambda: list(source.texts())):
        with pytest.raises(DataError, match=r"^The file .*a\.txt cannot be read: No such file or directory\.$"):
            ask()


def test_a_dataset_that_breaks_off_is_said() -> None:
    def rows() -> Iterator[dict[str, str]]:
        yield {"text": "a"}
        raise ConnectionError("the network is gone")

    source = open_source(datasets.IterableDataset.from_generator(rows))
    with pytest.raises(DataError, match=r"^The data IterableDataset cannot be read: the network is gone\.$"):
        list(source.records())


def empty(folder: Path) -> Path:
    return write(folder / "a.txt", b"")


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty file": (empty, r"The file .*a\.txt is empty\."),
    "white space": (lambda folder: write(folder / "a.txt", b" \n\n"), "has nothing but white space"),
    "no text": (
        lambda folder: write(folder / "a.txt", b"fine\nstill \x80"),
        r"a\.txt is not UTF-8 text: byte 0x80 at offset 11\.",
    ),
    "a character cut off": (lambda folder: write(folder / "a.txt", "aé".encode()[:-1]), "byte 0xc3 at offset 1"),
    "zeros": (lambda folder: write(folder / "a.txt", b"\xef\xbb\xbfab\0c"), "byte 0x00 at offset 5"),
    "no text in a csv": (lambda folder: write(folder / "a.csv", b"text\n\xff"), "byte 0xff at offset 5"),
    "no JSON": (
        lambda folder: write(folder / "a.jsonl", b'{"text": "a"}\n{"text"'),
        r"a\.jsonl, line 2: invalid JSON",
    ),
    "no object": (
        lambda folder: write(folder / "a.jsonl", b"[1]"),
        "line 1: not an object but a list. A .jsonl file has an object",
    ),
    "deep JSON": (lambda folder: write(folder / "a.jsonl", b"[" * 100_000), "line 1: invalid JSON"),
    "a later line without the field": (
        lambda folder: write(folder / "a.jsonl", b'{"text": "a"}\n\n{"other": "a"}'),
        r"a\.jsonl, line 3: no field 'text'\. Available: other\.",
    ),
    "half a character": (
        lambda folder: write(folder / "a.jsonl", b'{"text": "ab\\ud800"}'),
        r"line 1: the field 'text' is not text: its character 2 is half of one, U\+D800\.$",
    ),
    "no string": (
        lambda folder: write(folder / "a.jsonl", b'{"text": 7}'),
        "line 1: the field 'text' must be text, not 7",
    ),
    "a short row": (lambda folder: write(folder / "a.csv", b"text,b\n1,2\n3\n"), "line 3: the row has 1 fields, but"),
    "no parquet": (
        lambda folder: write(folder / "a.parquet", b"no parquet at all"),
        r"a\.parquet is not a valid Parquet file",
    ),
    "no file": (
        lambda folder: (empty(folder), folder / "b.txt")[1],
        r"There is no file .*b\.txt\. Did you mean 'a\.txt'",
    ),
    "no file beside hidden ones": (
        lambda folder: (write(folder / ".b.txt", b"a"), folder / "b.txt")[1],
        r"There is no file .*b\.txt\.$",
    ),
    "no folder": (lambda folder: str(folder / "b"), r"There is no file .*b\.$"),
    "a bare name": (lambda folder: "nothing", r"There is no file nothing.* hub is written hf:nothing\.$"),
    "no match": (lambda folder: f"{folder}/*.txt", "No file matches"),
    "an empty folder": (lambda folder: folder, r"has no file that ends with \.txt, \.md, \.jsonl, \.csv, \.parquet\."),
    "another ending": (lambda folder: write(folder / "a.doc", b"a"), r"a\.doc must end with \.txt, \.md, \.jsonl"),
    "a number": (lambda folder: 7, "Data must be a file, a folder, .* not 7"),
    "nothing": (lambda folder: [], r"not \[\]"),
    "a row without the field": (lambda folder: [{"text": "a"}, {}], "row 1: no field 'text'. Available: none"),
    "a dataset without the field": (
        lambda folder: DATASET.rename_column("text", "t"),
        "The dataset has no field 'text'. Available: label, t",
    ),
    "no such split": (lambda folder: datasets.DatasetDict({"test": DATASET}), "Unknown split 'train'. Available: test"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_sentence(tmp_path: Path, case: str) -> None:
    make, said = WRONG[case]
    with pytest.raises(DataError, match=said):
        list(open_source(make(tmp_path)).texts())


def test_an_unknown_kind_of_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="documents must be one of file, paragraph, line, not 'page'"):
        open_source(empty(tmp_path), documents="page")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1), min_size=1))
def test_any_texts_come_back_from_every_kind_of_table(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    rows = [{"id": index, "text": text} for index, text in enumerate(texts)]
    sources: list[Source] = [open_source(write(folder / f"a.{kind}", rows)) for kind, write in TABLES.items()]
    assert [list(source.texts()) for source in sources] == [texts] * 3
