"""The input for a run's model: a prompt where it takes text, numbers where it takes those."""

from __future__ import annotations

from functools import partial

from dash import html
from dash.development.base_component import Component

from darkit.dashboard.pages.mantine import dmc
from darkit.dashboard.pages.parts import card
from darkit.dashboard.reading.facts import Facts
from darkit.dashboard.texts import text
from darkit.runs.checkpoints import list_checkpoints
from darkit.runs.example import example_input, first_input, has_tokenizer
from darkit.runs.safe import as_dict


def takes_input(facts: Facts) -> bool:
    """Return whether a run's model can be asked here: it is darkit's own, and its input is text or known numbers."""
    if as_dict(facts.info.get("origin")):  # imported: it has no model
        return False
    return has_tokenizer(facts.folder) or first_input(facts.info) is not None


def prompt_card(facts: Facts, language: str) -> Component:
    """Return the input, its settings, and the place of the answer."""
    say = partial(text, language)
    words = has_tokenizer(facts.folder)
    names = [checkpoint.name for checkpoint in reversed(list_checkpoints(facts.folder))]
    other = bool(facts.label)  # a home that is only read
    example = "" if words else example_input(facts.folder, facts.info).strip('"')
    sampling = [
        dmc.NumberInput(
            id="prompt-tokens", label=say("prompt_tokens"), value=100, min=1, max=2000, size="xs", w=130
        ),
        dmc.NumberInput(
            id="prompt-temperature",
            label=say("prompt_temperature"),
            value=0.8,
            min=0,
            max=10,
            step=0.1,
            size="xs",
            w=130,
        ),
    ]  # fmt: skip
    checkpoint = dmc.Select(
        id="prompt-checkpoint",
        label=say("ckpt_name"),
        data=[{"value": "", "label": say("latest")}] + [{"value": name, "label": name} for name in names],
        value="",
        allowDeselect=False,
        size="xs",
        w=190,
    )
    return card(
        say("tab_prompt") if words else say("predict_numbers"),
        dmc.Textarea(
            id="prompt",
            placeholder=say("prompt_hint") if words else say("numbers_hint"),
            autosize=True,
            minRows=3,
            maxRows=16,
            value=example if example != "INPUT" else "",
            **{"aria-label": say("prompt") if words else say("predict_numbers")},
        ),
        html.Div(
            [
                *(sampling if words else []),
                checkpoint,
                html.Button(say("prompt_send"), id="prompt-send", className="small-button primary", disabled=other),
                html.Button(say("prompt_stop"), id="prompt-stop", className="small-button", hidden=True),
            ],
            className="controls end",
        ),
        html.Pre(
            id="prompt-answer",
            className="code answer",
            role="status",
            tabIndex=0,
            **{"aria-label": say("prompt_answer")},
        ),
    )
