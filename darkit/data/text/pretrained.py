"""Tokenizers of transformers, loaded without code of their own and only from files in their folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from darkit.errors import ConfigError, StorageError
from darkit.runs import files
from darkit.runs.safe import UnreadableError, read_bytes, read_object, refuse_links

_CONFIG = "tokenizer_config.json"
_LONGEST = 256 * 2**20  # bytes; vocabularies are long
_ADVICE = "darkit does not run it. Load the tokenizer yourself and pass it on, as tokenizer= or predicter.tokenizer"


def run_tokenizer(folder: Path) -> Any:
    """Load the tokenizer of a run directory, which is not trusted.

    Returns:
        A transformers tokenizer if the run has one, else a `tokenizers.Tokenizer`, or None.

    Raises:
        ConfigError: It cannot be loaded without its own code, or is not a tokenizer.
    """
    saved = folder / files.TOKENIZER_FOLDER
    what = f"The tokenizer of the run {folder.name!r}"
    try:
        if saved.is_symlink() or saved.is_dir():
            refuse_links(saved)
            _check_files(saved)
            return from_pretrained(saved)
        text = read_bytes(folder / files.TOKENIZER, _LONGEST).decode()
    except FileNotFoundError:
        return None
    except (UnreadableError, StorageError, UnicodeDecodeError, ValueError) as error:
        raise ConfigError(f"{what} cannot be loaded: {_first_line(error)}.") from error
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises plain Exception
        raise ConfigError(f"{what} cannot be loaded: {_first_line(error)}.") from error


def from_pretrained(where: str | Path) -> Any:
    """Load a tokenizer with transformers.

    Args:
        where: A folder written by ``save_pretrained``, or a name on the Hugging Face hub.

    Raises:
        ImportError: transformers is missing.
        ValueError: It needs code of its own, or is not a tokenizer.
    """
    from transformers import AutoTokenizer

    if isinstance(where, Path):
        _check_folder(where)
    try:
        return AutoTokenizer.from_pretrained(where, local_files_only=isinstance(where, Path), trust_remote_code=False)
    except Exception as error:  # of transformers, the hub or the network
        if "trust_remote_code" in str(error):
            raise ValueError(f"it needs code of its own, and {_ADVICE}") from error
        raise ValueError(_first_line(error)) from error


def _check_folder(folder: Path) -> None:
    """Raise `ValueError` if a folder needs code of its own, or its config names no tokenizer."""
    for name in (_CONFIG, "config.json"):
        try:
            facts = read_object(folder / name)
        except FileNotFoundError:
            continue
        except UnreadableError as error:
            raise ValueError(str(error)) from error
        found = facts.get("auto_map")
        if found and (name == _CONFIG or not isinstance(found, dict) or "AutoTokenizer" in found):
            raise ValueError(f"it needs code of its own ('auto_map' in {name}), and {_ADVICE}")
        if name == _CONFIG:
            _check_class(facts.get("tokenizer_class"))


def _check_files(folder: Path) -> None:
    """Raise `ValueError` if the config names files outside of the folder."""
    with suppress(FileNotFoundError):
        for key, value in read_object(folder / _CONFIG).items():
            if key.endswith("_file") and key != "special_tokens_map_file" and isinstance(value, str) and value:
                raise ValueError(f"{_CONFIG} names a file, {key}={value!r}, where only those of its folder are read")


def _check_class(name: object) -> None:
    """Raise `ValueError` if the config names a class that is not a tokenizer."""
    import transformers

    cls = getattr(transformers, name, None) if isinstance(name, str) else None
    if name is not None and not isinstance(name, str):
        raise ValueError(f"{_CONFIG} has the tokenizer_class {name!r}")
    if cls is not None and not (isinstance(cls, type) and issubclass(cls, transformers.PreTrainedTokenizerBase)):
        raise ValueError(f"{_CONFIG} has the tokenizer_class {name!r}, which is not a tokenizer")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
