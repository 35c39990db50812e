"""The compare page's statistics: the numbers and sentences of ``darkit compare``, for the groups of the page."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from darkit.dashboard.charts.charts import Charts
from darkit.dashboard.charts.contrasts import contrasts_of, grouping
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.runs.comparison_tables import document
from darkit.runs.statistics import summarize
from tests.cli.parts import done
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run
from tests.dashboard.screen import drawn, trace

Open = Callable[..., Page]
WIDTH = {"width": 64}


@pytest.fixture
def names(home: Path) -> list[str]:
    """Three seeds of two learning rates with two sizes of a batch, and one that crashed."""
    made = []
    for number in range(12):
        seed, lr, act = number % 3, [0.1, 0.01][number // 3 % 2], ["gelu", "relu"][number // 6]
        name = f"{act}-{lr}-{seed}"
        state = "crashed" if number == 11 else "finished"
        losses = {100: 0.02 + 0.001 * seed + (0.0103 + 0.0001 * seed) * (number // 3)}
        make_run(home / "base", name, 100, seed=seed, lr=lr, losses=losses, state=state, config={**WIDTH, "act": act})
        made.append(name)
    return made


def test_they_are_those_of_darkit_compare(home: Path, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    shown = Charts(Library(home / "base", LogCache())).chosen(names[:6], "log")
    assert grouping(shown, []) == ["*"]
    for at in ("best", "last"):
        compared = contrasts_of(shown, ["*"], "train_loss", at, "en").compared
        assert compared is not None
        said = document(compared, "markdown")
        first, second = (",".join(name for name in names[:6] if f"-{label}-" in name) for label in ("0.01", "0.1"))
        printed = done(capsys, "compare", first, second, "--metric", "train_loss", "--at", at, "--format", "markdown")
        escaped = {first: "0.01", second: "0.1"}
        for long, short in escaped.items():
            printed = printed.replace(long, short)
        assert said == printed.strip()
    chinese = contrasts_of(shown, ["*"], "train_loss", "best", "zh").compared
    assert chinese is not None
    assert chinese.contrasts[0].sentence.startswith("0.1 比 0.01 好 0.0104：在 3 个种子下大于噪声（配对 t 检验，")


def test_runs_that_are_repeated_are_compared_below_the_charts_and_grouped_by_several_keys_in_them(
    dashboard: Served, names: list[str], open_page: Open
) -> None:
    chosen = "&".join(f"run={name}" for name in names)
    page = open_page(f"{dashboard.address}/compare?{chosen}")
    box = page.locator("#statistics-box")
    expect(box.locator("table").first.locator("tbody tr")).to_have_count(4)  # all but the seed
    expect(box).to_contain_text("grouped by: All but seed")
    expect(box.locator(".sentences li").first).to_contain_text("more than noise at 3 seeds (paired t-test")
    expect(box).to_contain_text("relu-0.01-2, it is crashed")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    box.get_by_role("button", name="Table as LaTeX").click()
    expect(page.get_by_text("Copied")).to_be_visible()
    assert "\\begin{tabular}{lrrrrr}" in page.evaluate("navigator.clipboard.readText()")
    group = page.get_by_role("textbox", name="Group by")
    for key in ("trainer.lr", "model.act"):
        group.click()
        page.get_by_role("option", name=key, exact=True).click()
    page.keyboard.press("Escape")
    expect(box).to_contain_text("grouped by: trainer.lr, model.act")
    drawn(page, 2)
    page.wait_for_function("() => document.querySelectorAll('.chip[data-name]').length === 4")
    band = trace(page, "train_loss", "lr=0.1  act=gelu", "mean")
    assert band is not None
    assert "group=trainer.lr&group=model.act" in page.url
    title = "document.querySelector('[data-chart=train_loss] .plot').layout.xaxis.title.text"
    assert page.evaluate(title) == "Step · mean ± std"
    page.locator("#spread-box label", has_text="± 95 % CI").click()
    page.wait_for_function(f"() => {title} === 'Step · mean ± 95 % CI'")
    margin = (
        "document.querySelector('[data-chart=train_loss] .plot').data.find((one) => one.customdata).customdata.at(-1)"
    )
    losses = [0.02 + 0.001 * seed + (0.0103 + 0.0001 * seed) * 1 for seed in range(3)]  # of the first group, at its end
    interval = summarize(losses).interval
    assert interval is not None
    assert page.evaluate(margin) == pytest.approx((interval[1] - interval[0]) / 2)
    baseline = page.get_by_role("textbox", name="Baseline")
    expect(baseline).to_have_value("lr=0.01  act=gelu")
    baseline.click()
    page.get_by_role("option", name="lr=0.1 act=relu").click()
    expect(box.locator("table").last.locator("th").first).to_have_text("less lr=0.1  act=relu")
    expect(box.locator("table").first.locator("tbody th").first).to_have_text("lr=0.1  act=relu")
    page.locator("label", has_text=re.compile("^last$")).click()
    expect(box).to_contain_text("last")
    page.reload()
    expect(baseline).to_have_value("lr=0.1  act=relu")
    expect(box.locator("table").last.locator("th").first).to_have_text("less lr=0.1  act=relu")
    page.goto(f"{dashboard.address}/compare?run={names[0]}&run={names[3]}&lang=zh")
    expect(page.locator("#statistics-box")).to_contain_text("请在图表上方选择")
