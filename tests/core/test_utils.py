"""`darkit.core.utils`: paths, a CSV logger, learning rates, and data for language models."""

from __future__ import annotations

import random
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader

from darkit.core import utils
from darkit.core.utils import CSVLogger, find_multiple, set_seed, usetime
from darkit.core.utils.dataset import (
    create_tokenized_bert_dataset,
    create_tokenized_dataset,
    create_tokenized_gpt_dataset,
    create_tokenized_mask_dataset,
    data_collator,
    pretreat,
)
from darkit.core.utils.trainer import get_lr
from darkit.errors import ConfigError, DataError, LogError, StorageError
from tests.core.parts import loop, samples
from tests.test_someone_elses import fast_tokenizer

TEXTS = [f"The {word} of the file is read by the loop. It is {word}." for word in "abcdefgh"]


@dataclass
class Row:
    step: int = 0
    loss: Any = None


def test_paths_are_below_the_home(home: Path) -> None:
    assert (str(home), str(home)) == (utils.DARWIN_KIT_HOME, utils.HOME_PATH)
    assert (home / "models", home / "datasets") == (utils.MODEL_PATH, utils.DATASET_PATH)
    with pytest.raises(AttributeError, match="no attribute 'PWA_PATH'"):
        _ = utils.PWA_PATH
    assert (home / "base", home / "datasets" / "base") == (utils.BASE_MODEL_PATH, utils.BASE_DATASET_PATH)
    assert home / "tmp" == utils.TMP_PATH
    from darkit.lm.utils import DATASET_PATH, MODEL_PATH

    assert (home / "models" / "lm", home / "datasets" / "lm") == (MODEL_PATH, DATASET_PATH)


def test_the_address_of_this_computer_is_told_if_it_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostbyname", lambda name: "192.0.2.7")
    assert utils.get_local_ip() == "192.0.2.7"

    def unknown(name: str) -> str:
        raise socket.gaierror("no such name")

    monkeypatch.setattr("socket.gethostbyname", unknown)
    assert utils.get_local_ip() is None


def test_where_darwinkit_keeps_tokens_changes_nothing() -> None:
    data, tokenizer = Dataset.from_dict({"text": TEXTS}), fast_tokenizer("bpe")
    plain = create_tokenized_dataset(data, tokenizer)
    assert create_tokenized_dataset(data, tokenizer, external_path="own").to_dict() == plain.to_dict()
    blocks = [list(create_tokenized_gpt_dataset(data, tokenizer, 8, **more)) for more in ({}, {"chunk_size": 2})]
    assert len(blocks[0]) > 2
    assert all(torch.equal(torch.as_tensor(one), torch.as_tensor(other)) for one, other in zip(*blocks, strict=True))


def test_a_csv_logger_writes_each_row_at_once_and_continues_a_file(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    with CSVLogger(path, ["step", "loss"]) as logger:
        logger.log(Row(1, torch.tensor(0.5)))
        assert path.read_text() == "step,loss\n1,0.5\n"
        logger.log({"step": 2})
        with pytest.raises(LogError, match=r"The log has no column 'los'\. Did you mean 'loss'"):
            logger.log({"step": 3, "los": 1.0})
    with pytest.raises(LogError, match="is closed"):
        logger.log({"step": 3})
    CSVLogger(path, ["step", "loss"]).log({"step": 3, "loss": 0.25})
    assert path.read_text() == "step,loss\n1,0.5\n2,\n3,0.25\n"
    with pytest.raises(StorageError, match="Cannot write"):
        CSVLogger(tmp_path / "missing" / "own.csv", ["step"])


def test_a_csv_logger_leaves_the_log_of_a_run_to_the_run() -> None:
    trainer = loop(name="logged")
    path = trainer.save_directory / "train_log.csv"
    for _ in range(2):  # before the run exists, and after
        with pytest.raises(LogError, match=r"train_log.csv is written by the run itself: log into it with trainer.log"):
            CSVLogger(path, ["step"])
        trainer.train(samples(24))


def test_numbers() -> None:
    assert [find_multiple(n, 8) for n in (1, 8, 9)] == [8, 8, 16]
    with pytest.raises(ConfigError, match="k must be at least 1, not 0"):
        find_multiple(3, 0)
    settings = {"decay_lr": True, "warmup_iters": 10, "lr_decay_iters": 110, "min_lr": 0.2}
    assert [get_lr(1.0, it=it, **settings) for it in (0, 5, 10, 60, 110, 500)] == pytest.approx(
        [0.0, 0.5, 1.0, 0.6, 0.2, 0.2]
    )
    assert get_lr(1.0, it=5) == 1.0


def test_a_seed_is_that_of_every_generator(capsys: pytest.CaptureFixture[str]) -> None:
    drawn = []
    for _ in range(2):
        set_seed(3)
        with usetime("draw"):
            drawn.append((random.random(), numpy.random.random(), torch.rand(1).item()))
    assert drawn[0] == drawn[1]
    assert capsys.readouterr().out.startswith("draw: 0.")


def test_blocks_of_tokens_are_all_of_the_texts_in_their_order() -> None:
    tokenizer = fast_tokenizer("bpe")
    ids = [token for text in TEXTS for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    blocks = create_tokenized_gpt_dataset(Dataset.from_dict({"text": TEXTS}), tokenizer, 9)
    assert torch.cat(list(DataLoader(blocks, batch_size=None))).tolist() == ids[: len(ids) // 9 * 9]
    arguments = (Dataset.from_dict({"text": TEXTS}), tokenizer, 9)
    parts = [create_tokenized_gpt_dataset(*arguments, shuffle=True, num_processes=2, process_rank=r) for r in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == len(blocks) // 2
    found = sorted(tuple(block.tolist()) for part in parts for block in part)
    assert set(found) <= {tuple(block.tolist()) for block in blocks}
    with pytest.raises(DataError, match="too few for blocks of 5000"):
        create_tokenized_gpt_dataset(Dataset.from_dict({"text": TEXTS}), tokenizer, 5000)
    with pytest.raises(DataError, match="Choose a split of the dataset: train"):
        create_tokenized_gpt_dataset(DatasetDict({"train": arguments[0]}), tokenizer, 9)


def test_a_dataset_is_tokenized_split_by_split() -> None:
    tokenizer = fast_tokenizer("bpe")
    part = Dataset.from_dict({"text": TEXTS[:2], "other": [1, 2]})
    found = create_tokenized_dataset(DatasetDict({"train": part, "test": part}), tokenizer)
    assert set(found) == {"train", "test"}
    assert found["test"]["input_ids"][0] == tokenizer(TEXTS[0])["input_ids"]
    own = create_tokenized_dataset(part, tokenizer, encode_fn=lambda rows: {"n": [len(text) for text in rows["text"]]})
    assert own.column_names == ["n"]
    with pytest.raises(DataError, match="must be a Hugging Face Dataset with a column 'text', not list"):
        create_tokenized_dataset(TEXTS, tokenizer)


def test_masked_rows_and_pairs_have_the_tokens_as_labels_where_they_are_masked() -> None:
    tokenizer = fast_tokenizer("wordpiece")
    rows = create_tokenized_mask_dataset(Dataset.from_dict({"text": TEXTS}), tokenizer)
    for row, text in zip(rows, TEXTS, strict=True):
        whole = tokenizer(text)["input_ids"]
        assert any(label != -100 for label in row["labels"])
        filled = [ids if label == -100 else label for ids, label in zip(row["input_ids"], row["labels"], strict=True)]
        assert filled == whole
    pairs = create_tokenized_bert_dataset(Dataset.from_dict({"text": TEXTS}), tokenizer)
    assert len(pairs) == len(TEXTS) - 1
    assert set(pairs["next_sentence_label"]) == {0, 1}
    again = create_tokenized_bert_dataset(Dataset.from_dict({"text": TEXTS}), tokenizer)
    assert pairs["input_ids"] == again["input_ids"]
    splits = create_tokenized_bert_dataset(
        DatasetDict({"train": Dataset.from_dict({"text": TEXTS}), "test": Dataset.from_dict({"text": TEXTS[:4]})}),
        tokenizer,
    )
    assert splits["train"]["input_ids"] == pairs["input_ids"]
    assert len(splits["test"]) == 3
    ids, labels = pretreat.mask_single(tokenizer(TEXTS[0])["input_ids"], tokenizer)
    assert ids.shape == labels.shape


@pytest.mark.parametrize("processes", [1, 2])
def test_sentences_are_paired_over_a_whole_dataset_however_it_is_cut(processes: int) -> None:
    tokenizer = fast_tokenizer("wordpiece")
    texts = [f"a {'b ' * (index % 7)}" for index in range(1001)]
    found = create_tokenized_bert_dataset(Dataset.from_dict({"text": texts}), tokenizer, processes)
    pairs, labels = pretreat.create_next_sentence(texts, seed=0)
    assert found["next_sentence_label"][:] == labels
    whole = tokenizer([first for first, _ in pairs], [second for _, second in pairs])["input_ids"]
    assert [len(ids) for ids in found["input_ids"]] == [len(ids) for ids in whole]


def test_the_second_sentence_of_a_pair_is_what_its_label_says() -> None:
    sentences = [str(number) for number in range(200)]
    pairs, labels = pretreat.create_next_sentence(sentences, seed=1)
    distances = [int(second) - int(first) for first, second in pairs]
    assert all((distance == 1) == (label == 0) for distance, label in zip(distances, labels, strict=True))
    assert 0 not in distances
    assert 70 < sum(labels) < 130
    with pytest.raises(DataError, match="at least 3 sentences, not 2"):
        pretreat.create_next_sentence(["a", "b"])


def test_collators_pad_cut_and_shift() -> None:
    tokenizer = fast_tokenizer("bpe")
    pad = tokenizer.pad_token_id
    rows = [{"input_ids": [5, 6, 7, 8], "labels": [-100, 6, -100, -100]}, {"input_ids": [9], "labels": [9]}]
    batch = data_collator.MaskDataCollatorWithPadding(tokenizer, padding="max_length", max_length=3)(rows)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [9, pad, pad]]
    assert batch["labels"].tolist() == [[-100, 6, -100], [9, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    tokens, following = data_collator.LabelDataCollatorWithPadding(tokenizer, max_length=2)(rows)
    assert (tokens.tolist(), following.tolist()) == ([[5, 6], [9, pad]], [[6, 7], [pad, pad]])
    tokens, following = data_collator.TokenizerDataCollator(tokenizer)(TEXTS)
    assert tokens[0, 1:].tolist() == following[0, :-1].tolist()
    with pytest.raises(DataError, match="with a max_length, not 'max_length' with None"):
        data_collator.MaskDataCollatorWithPadding(tokenizer, padding="max_length")
