"""The task of a run's model, from the recorded data or else from the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from darkit.data.text.tokenizers import special_token
from darkit.prediction.text.language import parameter_names
from darkit.runs import Run
from darkit.runs.example import target
from darkit.runs.safe import as_dict
from darkit.runs.tasks import CAUSAL, CLASSIFICATION, MASKED, REGRESSION, SEQ2SEQ, TASKS

_BY_DATA = {  # the dataset's class -> the task, for runs that recorded no task
    "TokenWindows": CAUSAL,
    "DocumentWindows": CAUSAL,
    "TokenStream": CAUSAL,
    "MaskedTokens": MASKED,
    "SentencePairs": MASKED,
    "TextPairs": SEQ2SEQ,
}
_LABELLED = ("LabelledTexts", "TableRows")
_BY_CLASS = (  # endings of transformers' class names
    ("ForMaskedLM", MASKED),
    ("ForPreTraining", MASKED),
    ("ForSequenceClassification", CLASSIFICATION),
    ("ForConditionalGeneration", SEQ2SEQ),
    ("ForCausalLM", CAUSAL),
    ("LMHeadModel", CAUSAL),
)


def task_of(run: Run, model: nn.Module, tokenizer: Any) -> str:
    """Return the task of a model.

    Args:
        run: Its record is used first.
        model: Else its class name and the arguments of its ``forward``.
        tokenizer: The run's, or None.

    Returns:
        ``causal``, ``masked``, ``classification``, ``regression`` or ``seq2seq``.
    """
    data = as_dict(run.info.get("data"))
    if data.get("task") in TASKS:
        return str(data["task"])
    kind = str(data.get("kind", ""))
    if kind in _BY_DATA:
        return _BY_DATA[kind]
    names = label_names(run, model)
    if kind in _LABELLED:
        return CLASSIFICATION if names else REGRESSION
    class_name = type(model).__name__
    for ending, task in _BY_CLASS:
        if class_name.endswith(ending):
            alone = task == CLASSIFICATION and getattr(getattr(model, "config", None), "num_labels", 2) == 1
            return REGRESSION if alone else task
    if tokenizer is None:
        labels = target(run.info)
        return CLASSIFICATION if names or (labels and labels[0] == "int") else REGRESSION
    if names:
        return CLASSIFICATION
    takes_masks = "attention_mask" in parameter_names(model) and not callable(getattr(model, "make_cache", None))
    return MASKED if takes_masks and special_token(tokenizer, "mask") is not None else CAUSAL


def label_names(run: Run, model: nn.Module) -> list[str]:
    """Return the label names recorded by the run or named by a transformers model, by number; may be empty."""
    names = as_dict(run.info.get("data")).get("label_names")
    if isinstance(names, list) and names:
        return [str(name) for name in names]
    known = getattr(getattr(model, "config", None), "id2label", None)
    if isinstance(known, Mapping) and not all(str(name).startswith("LABEL_") for name in known.values()):
        return [str(known[number]) for number in sorted(known)]
    return []


def column_names(run: Run) -> tuple[list[str], list[str]]:
    """Return the feature and the target columns, each empty if not recorded."""
    data = as_dict(run.info.get("data"))
    found = ((value if isinstance(value := data.get(key), list) else []) for key in ("features", "target"))
    features, target = ([str(name) for name in names] for names in found)
    return features, target
