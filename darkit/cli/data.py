"""``darkit data``: prepare text for training, and list prepared text."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from darkit.cli.parsers import Subparsers, add_command, output
from darkit.errors import DataError, listing, nearest
from darkit.runs.inert import format_json

if TYPE_CHECKING:
    from darkit.data import Prepared

_EXAMPLES = """\
  darkit data prepare ./texts
  darkit data show
"""
_PREPARE = """\
  darkit data prepare ./texts                                  a folder of .txt, .md, .jsonl, .csv, .parquet
  darkit data prepare 'books/*.txt' --documents paragraph --kind unigram --vocab-size 8000
  darkit data prepare chats.jsonl --field message --tokenizer tokenizer.json
Training with the same settings, `darkit train data=files data.path=./texts`, uses the prepared text.
"""
_SHOW = """\
  darkit data show          list prepared text, the newest first
  darkit data show KEY      show one with its first words; a prefix of the key suffices
"""
_SHOWN = 3  # documents
_TOKENS = 40  # shown of each


def add_parser(commands: Subparsers) -> None:
    """Add the command and its subcommands."""
    parser = add_command(commands, "data", run_show, "prepare text for training, or show prepared text", _EXAMPLES)
    words = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    making = add_command(words, "prepare", run_prepare, "tokenize text once and keep it", _PREPARE)
    making.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder, a pattern, or hf:NAME")
    making.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.json, a folder with one, or a name on the hub")
    making.add_argument("--kind", default="bpe", help="kind of a trained tokenizer (default: bpe)")
    making.add_argument("--vocab-size", type=int, default=2048, metavar="N", help="its maximum size (default: 2048)")
    making.add_argument(
        "--special-tokens", nargs="+", metavar="TOKEN", help="its special tokens (default: those of its kind)"
    )
    making.add_argument("--field", default="text", help="the field with the text (default: text)")
    making.add_argument("--documents", default="file", help="unit of a .txt: file, paragraph or line (default: file)")
    making.add_argument("--split", default="train", help="split of a Hugging Face dataset (default: train)")
    making.add_argument(
        "--val-fraction", type=float, default=0.1, metavar="F", help="fraction held out for validation (default: 0.1)"
    )
    making.add_argument("--val-files", nargs="+", metavar="NAME", help="the validation files instead")
    making.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the split (default: 0)")
    making.add_argument("--json", action="store_true", help="print JSON")
    showing = add_command(words, "show", run_show, "show prepared text", _SHOW)
    showing.add_argument("key", nargs="?", metavar="KEY", help="the key; without it, all are listed")
    showing.add_argument("--json", action="store_true", help="print JSON")


def run_prepare(arguments: argparse.Namespace) -> int:
    """Prepare text, unless it is prepared already, and show it."""
    from darkit.data import prepare

    paths = arguments.paths
    prepared = prepare(
        paths[0] if len(paths) == 1 else paths,
        arguments.tokenizer,
        kind=arguments.kind,
        vocab_size=arguments.vocab_size,
        special_tokens=arguments.special_tokens,
        field=arguments.field,
        documents=arguments.documents,
        split=arguments.split,
        val_fraction=arguments.val_fraction,
        val_files=arguments.val_files,
        seed=arguments.seed,
    )
    _print_one(prepared, as_json=arguments.json)
    return 0


def run_show(arguments: argparse.Namespace) -> int:
    """List prepared text, or show one."""
    from darkit.data import cache_folder, open_prepared

    root = cache_folder()
    folders = [path for path in root.glob("[!.]*") if path.is_dir()] if root.is_dir() else []
    if arguments.key is None:
        _print_all([_summary(path) for path in folders], root, as_json=arguments.json)
        return 0
    matches = [path for path in folders if path.name.startswith(arguments.key)]
    if len(matches) != 1:
        said = "matches several" if matches else "matches none"
        names = [path.name for path in matches or folders]
        raise DataError(
            f"The key {arguments.key!r} {said} of the prepared data in {root}. {nearest(arguments.key, names)}."
        )
    _print_one(open_prepared(matches[0]), as_json=arguments.json)
    return 0


def _print_all(rows: list[dict[str, Any]], root: Path, *, as_json: bool) -> None:
    rows.sort(key=lambda row: -row["time"])
    if as_json:
        print(format_json(rows))
        return
    console = output()
    if not rows:
        console.print(f"No prepared text in {root}. Run `darkit data prepare PATH`.", markup=False)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("key", "made", "documents", "tokens", "vocabulary", "MB", "from"):
        table.add_column(name, justify="left" if name in ("key", "made", "from") else "right", no_wrap=name != "from")
    for row in rows:
        made = time.strftime("%Y-%m-%d %H:%M", time.localtime(row["time"]))
        cells = (f"{row['documents']:,}", f"{row['tokens']:,}", f"{row['vocabulary']:,}", f"{row['bytes'] / 1e6:.1f}")
        table.add_row(row["key"], made, *cells, row["from"] if not row["problem"] else row["problem"])
    console.print(table)
    console.print(f"in {root}", style="dim", markup=False, soft_wrap=True)


def _summary(folder: Path) -> dict[str, Any]:
    from darkit.data import open_prepared

    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    row: dict[str, Any] = {"key": folder.name, "time": 0.0, "documents": 0, "tokens": 0, "vocabulary": 0, "bytes": size}
    try:
        prepared = open_prepared(folder)
    except DataError as error:
        return {**row, "from": "", "problem": str(error)}
    parts = prepared.meta["parts"].values()
    return {
        **row,
        "time": prepared.meta["time"],
        "documents": sum(part["documents"] for part in parts),
        "tokens": sum(part["tokens"] for part in parts),
        "vocabulary": prepared.vocabulary,
        "from": listing(prepared.meta["files"], limit=1),
        "problem": "",
    }


def _print_one(prepared: Prepared, *, as_json: bool) -> None:
    meta = prepared.meta
    if as_json:
        print(format_json({**meta, "folder": str(prepared.folder)}))
        return
    console = output()
    console.print(f"{prepared.folder.name}", style="bold", markup=False)
    lines = [
        ("folder", str(prepared.folder)),
        ("from", listing(meta["files"], limit=5)),
        ("vocabulary", f"{prepared.vocabulary:,} tokens"),
    ]
    for part, facts in meta["parts"].items():
        ratio = facts["characters"] / max(1, facts["tokens"])
        words = f"{facts['documents']:,} documents, {facts['characters']:,} characters, {facts['tokens']:,} tokens"
        lines.append((part, f"{words} ({ratio:.2f} characters each)"))
    split = meta["split"]
    lines.append(("split", f"by {split['by']}" + (f", seed {split['seed']}" if "seed" in split else "")))
    if meta["unigram"] is not None:
        lines.append(("unigram model", f"{meta['unigram']:.4f} nats per token"))
    for number in range(min(_SHOWN, prepared.train.documents)):
        ids = prepared.train.document(number)[:_TOKENS].tolist()
        lines.append((f"document {number}", " ".join(prepared.tokenizer.decode(ids).split())))
    for name, text in lines:
        console.print(f"  {name:<14} {text}", markup=False, overflow="ellipsis", no_wrap=True)
