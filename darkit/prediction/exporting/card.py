"""The model card of an export: ``README.md`` made of what the run knows.

Everything that comes from the run is untrusted. It is written in code spans and code blocks that it cannot leave, and
in the YAML header as JSON strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from darkit.runs import Run
from darkit.runs.checkpoints import Checkpoint
from darkit.runs.inert import inert
from darkit.runs.tasks import CAUSAL, CLASSIFICATION, MASKED, SEQ2SEQ

_LONGEST = 300  # characters of a value
_MOST_ROWS = 60
_PIPELINES = {
    CAUSAL: "text-generation",
    MASKED: "fill-mask",
    CLASSIFICATION: "text-classification",
    SEQ2SEQ: "text2text-generation",
}
_DATA = ("kind", "task", "samples", "sample", "fingerprint", "label_names", "features", "target")
_FILL_IN = """\
## Limits

Fill in before you share this model:

- Intended use, and uses that it is not meant for:
- Known weaknesses and biases, and on which data they were measured:
- License of the weights, and licenses of the training data:
"""


def model_card(
    run: Run,
    checkpoint: Checkpoint,
    *,
    library: str,
    model_class: str,
    task: str,
    usage: Sequence[str],
    base_model: str | None = None,
    limits: Sequence[str] = (),
) -> str:
    """Return the text of a model card.

    Args:
        run: The run.
        checkpoint: The exported checkpoint.
        library: The library that loads the folder: ``transformers`` or ``peft``.
        model_class: The class of the model.
        task: The task of a model that reads text, see `darkit.runs.tasks`; else empty.
        usage: Lines of Python that load the folder, which must not contain text of the run.
        base_model: The name of an adapter's base model, if known.
        limits: Sentences about this export, without text of the run.
    """
    info = run.info
    parts = [
        _header(library, task, base_model),
        f"# {code(run.name)}",
        f"Model: {code(model_class)}, trained with darkit. The weights are those of {code(checkpoint.name)}, step "
        f"{checkpoint.step}.",
        "\n".join(["## How to use", "", "```python", *usage, "```"]),
        _section(f"Metrics at step {checkpoint.step}", checkpoint.metrics.items()),
        _section("Training data", _chosen(info.get("data"), _DATA)),
        _block("Model config", run.model_config),
        _block("Training config", run.trainer_config),
        _section("Provenance", _provenance(info, checkpoint)),
        _FILL_IN + "".join(f"- {limit}\n" for limit in limits),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def code(value: object) -> str:
    """Return a value as a code span that nothing in it can end."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = inert(text)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{fence}{pad}{text or ' '}{pad}{fence}"


def as_json(value: Any) -> str:
    """Return indented JSON in ASCII without the characters that end a code block or start HTML."""
    text = json.dumps(value, indent=2, default=str)
    return text.replace("`", "\\u0060").replace("<", "\\u003c").replace(">", "\\u003e")


def _header(library: str, task: str, base_model: str | None) -> str:
    facts: list[tuple[str, Any]] = [("library_name", library), ("tags", ["darkit"])]
    if task in _PIPELINES:
        facts.insert(1, ("pipeline_tag", _PIPELINES[task]))
    if base_model:
        facts.append(("base_model", base_model))
    return "\n".join(["---", *(f"{key}: {json.dumps(value)}" for key, value in facts), "---"])


def _section(title: str, rows: Iterable[tuple[str, Any]]) -> str:
    shown = list(rows)[:_MOST_ROWS]
    lines = [f"- {code(key)}: {code(value)}" for key, value in shown] or ["Not recorded."]
    return "\n".join([f"## {title}", "", *lines])


def _block(title: str, values: Mapping[str, Any]) -> str:
    return f"## {title}\n\n```json\n{as_json(values)}\n```" if values else ""


def _chosen(values: Any, names: Sequence[str]) -> list[tuple[str, Any]]:
    known = values if isinstance(values, Mapping) else {}
    return [(name, known[name]) for name in names if known.get(name) not in (None, "", [])]


def _provenance(info: Mapping[str, Any], checkpoint: Checkpoint) -> list[tuple[str, Any]]:
    git, versions = info.get("git"), info.get("versions")
    known = {"run id": info.get("id"), "sha256 of the checkpoint": checkpoint.sha256}
    rows = _chosen(known, list(known))
    if isinstance(git, Mapping) and git.get("commit"):
        rows.append(("git commit", f"{git['commit']}{' with changes' if git.get('diff') else ''}"))
    rows += [(f"version of {name}", value) for name, value in versions.items()] if isinstance(versions, Mapping) else []
    return [*rows, *_chosen({"seed": info.get("seed")}, ("seed",))]
