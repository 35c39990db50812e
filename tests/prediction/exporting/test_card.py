"""Text of a run is inert in a model card, for Markdown and for YAML."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from darkit.prediction.exporting.card import as_json, code, model_card
from darkit.runs import Run, files
from darkit.runs.checkpoints import Checkpoint

EVIL = [
    "`` ` ```",
    "`",
    "```\n# Title\n",
    "---\nlibrary_name: evil\n---",
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![](https://evil.example/pixel.png)",
    "a|b\\|c",
    "\u202eright to left\u200b",
    "\x1b[31mred\x07",
    "",
    " ",
]


def spans(line: str) -> str:
    """What is left of a line of Markdown without its code spans, by the rules of CommonMark 6.1."""
    left, rest = "", line
    while found := re.search("`+", rest):
        left, behind = left + rest[: found.start()], rest[found.end() :]
        closing = next((one for one in re.finditer("`+", behind) if len(one[0]) == len(found[0])), None)
        if closing is None:
            left, rest = left + found[0], behind
        else:
            rest = behind[closing.end() :]
    return left + rest


@given(st.one_of(st.sampled_from(EVIL), st.text()))
def test_a_code_span_holds_its_text_and_nothing_is_left_beside_it(text: str) -> None:
    line = f"- {code('key')}: {code(text)}!"
    assert "\n" not in line
    assert spans(line) == "- : !"


@given(st.recursive(st.text() | st.floats() | st.none(), lambda inner: st.dictionaries(st.text(), inner)))
def test_a_code_block_of_json_is_plain_and_the_same_value(value: Any) -> None:
    text = as_json(value)
    assert text.isascii()
    assert not set("`<>") & set(text)
    assert json.dumps(json.loads(text), sort_keys=True) == json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("evil", EVIL)
def test_a_card_of_a_hostile_run_has_the_headings_and_facts_of_any_other(evil: str, tmp_path: Path) -> None:
    def card(text: str) -> str:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        data = {"kind": text, "fingerprint": text, "label_names": [text]}
        files.write_json(folder / "run.json", {"id": text, "data": data, "git": {"commit": text or "x"}, "seed": text})
        files.write_json(folder / "config.json", {text: text})
        files.write_json(folder / "trainer_config.json", {text: [text]})
        checkpoint = Checkpoint(3, folder / "iter-3-ckpt.pth", 1, "a", {text: 1.0})
        return model_card(
            Run(folder), checkpoint, library="peft", model_class=text, task=text, usage=["pass"], base_model=text
        )

    def outline(text: str) -> list[str]:
        _, _, body = text.split("---\n", 2)
        assert len(re.findall("^ *```[^`]*$", body, re.MULTILINE)) == 6  # three code blocks
        prose = re.sub("^```[^`]*\n```$", "", body, flags=re.MULTILINE)
        return [spans(line) for line in prose.splitlines() if line]

    made = card(evil)
    header = OmegaConf.to_container(OmegaConf.create(made.split("---\n", 2)[1]))
    assert header["library_name"] == "peft"
    assert set(header) <= {"library_name", "tags", "base_model", "pipeline_tag"}
    if evil:
        assert outline(made) == outline(card("plain"))
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u200b\u202e]", made)
