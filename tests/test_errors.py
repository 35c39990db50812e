from __future__ import annotations

import ast
import builtins
import errno
import inspect
import pickle
from pathlib import Path

import pytest

from darkit import errors
from darkit.errors import DarkitError, StorageError, listing, nearest

EVERY = [
    cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, DarkitError) and cls is not DarkitError
]


def ids(cls: type) -> str:
    return cls.__name__


@pytest.mark.parametrize("cls", EVERY, ids=ids)
def test_every_error_is_also_a_builtin_that_people_catch(cls: type[DarkitError]) -> None:
    others = [base for base in cls.__mro__ if base.__module__ == "builtins"]
    assert [base for base in others if base not in (Exception, BaseException, object)]
    assert cls.__name__.endswith("Error")
    assert not hasattr(builtins, cls.__name__)
    assert inspect.getdoc(cls)


@pytest.mark.parametrize("cls", EVERY, ids=ids)
def test_every_error_shows_its_sentence_and_survives_the_way_to_another_process(cls: type[DarkitError]) -> None:
    error = pickle.loads(pickle.dumps(cls("The value 'x' is wrong.")))
    assert type(error) is cls
    assert str(error) == "The value 'x' is wrong."


def test_a_storage_error_keeps_the_number_and_shows_the_sentence_alone() -> None:
    error = pickle.loads(pickle.dumps(StorageError(errno.ENOSPC, "Cannot write x: No space left on device.")))
    assert error.errno == errno.ENOSPC
    assert str(error) == "Cannot write x: No space left on device."


def test_errors_are_a_leaf() -> None:
    tree = ast.parse(Path(errors.__file__).read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"__future__", "collections.abc", "difflib"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.Import)]


def test_nearest_lists_similar_names_first() -> None:
    assert nearest("lr", []) == "Available: none"
    assert nearest("zzz", ["b", "a"]) == "Available: a, b"
    assert nearest("batch", ["alpha", "batches", "lr"]) == "Did you mean 'batches'? Available: batches, alpha, lr"


@pytest.mark.parametrize(
    ("wanted", "existing", "said"),
    [
        ("val_loss", ["train_loss", "step"], "Available: train_loss, step"),
        ("val_loss", ["train_loss", "val_losses"], "Did you mean 'val_losses'? Available: val_losses, train_loss"),
        ("val/acc", ["train/acc", "val/accuracy"], "Did you mean 'val/accuracy'? Available: val/accuracy, train/acc"),
        ("val_lr", ["train_lr", "val_rate"], "Did you mean 'val_rate'? Available: val_rate, train_lr"),
        ("num-heads", ["max-heads"], "Available: max-heads"),
        ("trian_loss", ["train_loss", "val_loss"], "Did you mean 'train_loss'? Available: train_loss, val_loss"),
        ("lx_decay", ["lr_decay"], "Did you mean 'lr_decay'? Available: lr_decay"),
        ("val_loss", ["loss"], "Did you mean 'loss'? Available: loss"),
        ("my_val_loss", ["train_loss", "val_loss"], "Did you mean 'val_loss'? Available: val_loss, train_loss"),
    ],
)
def test_a_name_with_another_first_word_is_not_suggested(wanted: str, existing: list[str], said: str) -> None:
    assert nearest(wanted, existing) == said


def test_nearest_respects_its_limit() -> None:
    names = [f"run-{number:02}" for number in range(12)]
    assert nearest("xyz", names, limit=3) == "Available: run-00, run-01, run-02 and 9 more"
    assert nearest("run-07", iter(names), limit=2).startswith("Did you mean 'run-07'? Available: run-07, ")


def test_a_listing_counts_the_names_beyond_its_limit() -> None:
    assert listing(["a", "b"], limit=2) == "a, b"
    assert listing(["a", "b", "c"], limit=2) == "a, b and 1 more"
    assert listing([]) == ""
