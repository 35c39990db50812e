"""The prompt box: a model's words, from a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.server.predict import Prompts
from darkit.errors import ConfigError
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run

Open = Callable[..., Page]


def test_a_language_model_answers_in_its_run_page(
    python: str, dashboard: Served, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "name=talker",
        "trainer.max_step=1",
        "trainer.device=cpu",
        "trainer.tensorboard=false",
        "trainer.batch_size=2",
    ]
    subprocess.run([python, "-m", "darkit", "train", *words], check=True, capture_output=True, timeout=240)
    monkeypatch.setattr(sys, "executable", python)
    page = open_page(dashboard.address + "/run/talker?tab=prompt")
    page.locator("#prompt").fill("The import statement")
    page.locator("#prompt-tokens").fill("5")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#prompt-answer[data-done=yes]")).to_have_count(1, timeout=120_000)
    answer = page.locator("#prompt-answer").inner_text()
    assert answer.startswith("The import statement")
    assert len(answer.strip()) > len("The import statement")


def test_a_model_that_cannot_answer_says_so_in_one_sentence(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "mute", 20)
    (folder / "tokenizer.json").write_text("{}")
    page = open_page(dashboard.address + "/run/mute?tab=prompt")
    page.locator("#prompt").fill("--help")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#prompt-answer")).to_contain_text("Error", timeout=60_000)
    assert "Traceback" not in page.locator("#prompt-answer").inner_text()


@pytest.mark.parametrize(
    ("prompt", "tokens", "temperature"),
    [
        ("", 10, 1.0),
        (None, 10, 1.0),
        ("x" * 20_001, 10, 1.0),
        ("x", 0, 1.0),
        ("x", 2001, 1.0),
        ("x", True, 1),
        ("x", 5, -1),
        ("x", 5, "1"),
    ],
)
def test_a_prompt_out_of_its_bounds_is_refused(home: Path, prompt: object, tokens: object, temperature: object) -> None:
    with pytest.raises(ConfigError):
        Prompts().check(prompt, tokens, temperature)
