"""The page of one run: everything that is known of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Page, expect

from darkit.dashboard.pages.run import commands
from darkit.dashboard.reading.cache import LogCache
from darkit.dashboard.reading.library import Library
from darkit.runs import files
from darkit.runs.notes import OWN_DATA, Evaluation, Notes, add_evaluation, read_notes, write_notes
from tests.dashboard.conftest import Served
from tests.dashboard.parts import STARTED, make_run, row, write_log
from tests.dashboard.screen import drawn
from tests.runs.parts import wait_until

Open = Callable[..., Page]


def test_the_run_page_tells_reason_traceback_commands_checkpoints_and_source(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/broken-off")
    expect(page.locator("#run-ending")).to_contain_text("ValueError: boom")
    page.get_by_text("Traceback", exact=True).click()
    expect(page.locator("#run-ending pre")).to_be_visible()
    page.get_by_role("tab", name="Overview").click()
    card = page.locator("#commands-box")
    expect(card).to_contain_text("python train.py 'a b'")
    said = card.inner_text()
    assert (
        said.index("Command\n")
        < said.index("train.py")
        < said.index("Reproduce")
        < said.index("darkit reproduce broken-off")
    )
    expect(page.get_by_role("tabpanel")).to_contain_text("name='broken-off', resume=True")
    page.get_by_text("Uncommitted changes").click()
    expect(page.get_by_role("tabpanel").locator("pre", has_text="-old")).to_be_visible()
    page.get_by_role("tab", name="Checkpoints").click()
    rows = page.locator("table.values tbody tr")
    expect(rows).to_have_count(2)
    expect(rows.nth(0)).to_contain_text("no manifest")
    expect(rows.nth(1)).to_contain_text("complete")
    expect(rows.nth(1)).to_contain_text("val_loss 0.5")
    page.get_by_role("tab", name="Source").click()
    expect(page.get_by_role("tabpanel")).to_contain_text("class MLP")
    page.get_by_role("tab", name="Machine").click()
    expect(page.locator("#system-charts .plot[data-drawn]")).to_have_count(3)
    assert "tab=machine" in page.url


def test_the_console_is_followed_searched_and_shown_as_text(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "talks", 20, state="running")
    page = open_page(dashboard.address + "/run/talks?tab=console")
    shown = page.get_by_role("tabpanel").locator("pre").first
    expect(shown).to_have_text("No output was recorded.")
    lines = [f"line {number} of many\n" for number in range(40_000)]
    (folder / files.CONSOLE).write_text("".join(lines) + "<b>the end</b> \x1b[31m\n")
    expect(shown).to_contain_text("<b>the end</b>")  # without a reload
    expect(shown).to_contain_text("line 39999 of many")
    expect(shown).not_to_contain_text("line 1 of many")
    expect(page.get_by_role("tabpanel")).to_contain_text("darkit show talks --console")
    assert not page.locator("#console-box b").count()
    at_end = """() => { const one = document.querySelector('.console-text');
        return one.scrollHeight - one.scrollTop - one.clientHeight < 9; }"""
    page.wait_for_function(at_end)
    with (folder / files.CONSOLE).open("a") as out:
        out.write("Traceback: it failed\nhalf a li")
    expect(shown).to_contain_text("it failed")
    expect(shown).not_to_contain_text("half a li")
    page.wait_for_function(at_end)
    page.get_by_placeholder("Search the console").fill("TRACEBACK")
    expect(shown).to_have_text("Traceback: it failed")
    expect(page.locator(".chart-count")).to_contain_text("1 of ")
    page.get_by_role("button", name="Follow").click()
    expect(page.get_by_role("button", name="Follow")).to_have_attribute("aria-pressed", "false")


def test_commands_match_how_a_run_was_started_and_the_input_of_its_model(home: Path) -> None:
    root = home / "base"
    library = Library(root, LogCache())
    complete = make_run(root, "from python", 20)
    broken = make_run(root, "composed", 20, state="crashed", max_step=50)
    for folder in (complete, broken):
        info = files.read_json(folder / files.RUN)
        files.write_json(folder / files.RUN, {**info, "data": {"sample": "(float32[2], float32[1])"}})
    (broken / files.COMPOSED_CONFIG).write_text("overrides: []\n")
    said = {name: dict(commands(library.facts(name), "en")) for name in ("from python", "composed")}
    assert said["from python"]["Resume"] == "darkit.fit(model, data, name='from python', resume=True, max_step=40)"
    assert said["from python"]["Predict"] == """darkit predict 'from python' "[[0.5, 0.5]]\""""
    assert said["composed"]["Resume"] == "darkit train resume=composed"
    assert "Fork" not in said["composed"]  # it has no checkpoint
    for step in (30, 40, 50):
        (broken / f"iter-{step}-ckpt.pth").write_bytes(b"x" * 10)
        lighter = {"without_optimizer": {"size": 10, "sha256": "cd" * 32}} if step == 40 else {}
        size = 11 if step == 50 else 10  # the last one is cut off
        files.write_json(
            broken / f"iter-{step}-ckpt.json", {"size": size, "sha256": "ab" * 32, "step": step, **lighter}
        )
    fork = "darkit train fork=composed:iter-30 name=NEW"
    assert dict(commands(library.facts("composed"), "en"))["Fork"] == fork
    files.write_json(broken / "iter-50-ckpt.json", {"size": 10, "sha256": "ab" * 32, "step": 50})
    fork = "darkit train fork=composed:iter-50 name=NEW trainer.max_step=100"  # it needs a later end
    assert dict(commands(library.facts("composed"), "en"))["Fork"] == fork
    assert said["from python"]["Reproduce"] == "darkit reproduce 'from python'"
    assert said["from python"]["Command"] == "python train.py 'a b'"
    info = files.read_json(complete / files.RUN)
    files.write_json(complete / files.RUN, {**info, "command": None})
    assert not {"Command", "Reproduce"} & dict(commands(library.facts("from python"), "en")).keys()
    status = files.read_json(broken / files.STATUS)
    files.write_json(broken / files.STATUS, {**status, "state": "finished"})
    assert dict(commands(library.facts("composed"), "en"))["Resume"] == (
        "darkit train resume=composed trainer.max_step=100"
    )


def test_times_are_shown_in_the_time_zone_and_language_of_the_reader(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-0?tab=overview", timezone_id="Asia/Shanghai", locale="zh-CN")
    expect(page.locator("dd", has_text="2025-10-09 16:53")).to_be_visible()
    expect(page.locator("dd", has_text="1 小时 40 分")).to_be_visible()


def test_a_run_is_deleted_from_its_own_page_which_leads_to_the_others_then(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 20)
    make_run(dashboard.root, "two", 20)
    page = open_page(dashboard.address + "/run/one")
    page.locator("#delete").click()
    expect(page.locator("#delete-text")).to_have_text("one")
    page.locator("#delete-name").fill("one")
    page.locator("#delete-now").click()
    expect(page.locator(".ag-row .run-link")).to_have_text("two")
    assert not folder.exists()


def test_the_open_tab_is_on_the_screen_of_a_phone(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/mlp-0?tab=notes", wide=False)
    expect(page.get_by_role("tab", name="Notes")).to_be_in_viewport(ratio=0.9)
    page.set_viewport_size({"width": 390, "height": 200})
    page.reload()
    page.wait_for_function("() => document.querySelector('.tabs-list')?.scrollLeft > 0")
    assert page.evaluate("window.scrollY") == 0  # the page stays where it begins


def test_an_undecodable_address_names_no_run(runs: Served, open_page: Open) -> None:
    page = open_page(runs.address + "/run/%ff")
    expect(page.get_by_text("No run is named")).to_be_visible()


def test_evaluations_are_shown_with_the_newest_first(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 20)
    add_evaluation(folder, Evaluation(1.7e9, "old.txt", "iter-4-ckpt", {"loss": 2.5}))
    add_evaluation(folder, Evaluation(math.nan, "<b>new</b>.txt", "iter-4-ckpt", {"loss": 2.25, "accuracy": 0.5}))
    page = open_page(dashboard.address + "/run/one?tab=overview")
    table = page.locator("table.values", has_text="Checkpoint")
    expect(table.locator("th")).to_have_text(["Data", "Checkpoint", "loss", "accuracy", "Time"])
    expect(table.locator("tbody tr").nth(0)).to_contain_text("<b>new</b>.txt")
    expect(table.locator("tbody tr").nth(0)).to_contain_text("2.25")
    expect(table.locator("tbody tr").nth(1)).to_contain_text("2023-11-1")
    add_evaluation(folder, Evaluation(1.8e9, f"{OWN_DATA} seed=1", "iter-4-ckpt", {"loss": 2.5}))
    page.goto(dashboard.address + "/run/one?tab=overview&lang=zh")
    expect(page.get_by_text("该运行自己的数据 seed=1")).to_be_visible()


def test_saving_the_notes_of_a_run_keeps_concurrent_changes(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 20)
    write_notes(folder, Notes(("shown",), "first"))
    page = open_page(dashboard.address + "/run/one?tab=notes")
    page.locator("#own-note").fill("mine")
    page.locator("#own-save").click()
    expect(page.get_by_text("Saved.")).to_be_visible()
    assert read_notes(folder) == Notes(("shown",), "mine")
    write_notes(folder, Notes(("shown", "theirs"), "their words"))
    page.locator("#own-note").fill("mine again")
    expect(page.get_by_text("was changed elsewhere")).to_be_visible()
    page.locator("#own-note").fill("mine")
    page.locator("#own-tags").fill("new")
    page.locator("#own-tags").press("Enter")
    wait_until(lambda: set(read_notes(folder).tags) == {"shown", "theirs", "new"})
    assert read_notes(folder).note == "their words"


def test_the_texts_of_a_run_follow_it_while_another_tab_than_its_charts_is_open(
    dashboard: Served, open_page: Open
) -> None:
    folder = make_run(dashboard.root, "one", 200, state="running", max_step=400)
    page = open_page(dashboard.address + "/run/one?tab=checkpoints")
    expect(page.locator("#run-progress")).to_contain_text("100 steps/s")
    expect(page.locator(".tile", has_text="Speed").locator(".tile-more")).to_have_text("2.0 s left")
    expect(page.get_by_role("tabpanel")).to_contain_text("No checkpoint")
    status = files.read_json(folder / files.STATUS)
    files.write_json(folder / files.STATUS, {**status, "heartbeat": status["started"] + 90})
    write_log(folder, 210)
    expect(page.locator("#strip-values [data-duration]")).to_have_text("1 min 30 s")
    files.write_json(folder / files.STATUS, status)
    (folder / "iter-150-ckpt.pth").write_bytes(b"x" * 10)
    expect(page.locator("table.values tbody tr")).to_contain_text("iter-150-ckpt")
    status = files.read_json(folder / files.STATUS)
    ended = {"state": "crashed", "reason": "ValueError: boom", "traceback": "Traceback ...\nValueError: boom"}
    files.write_json(folder / files.STATUS, {**status, **ended})
    expect(page.locator("#run-state")).to_have_text("crashed")
    expect(page.locator("#run-ending")).to_contain_text("ValueError: boom")
    page.get_by_text("Traceback", exact=True).click()
    expect(page.locator("#run-ending pre")).to_be_visible()
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#delete")).to_be_visible()


def test_the_overview_follows_the_run_and_a_column_that_comes_later_can_be_x(
    dashboard: Served, open_page: Open
) -> None:
    folder = make_run(dashboard.root, "one", 0, state="running", max_step=400)
    page = open_page(dashboard.address + "/run/one?tab=overview")
    facts = page.locator("dl.facts")
    expect(facts).to_be_visible()
    status = files.read_json(folder / files.STATUS)
    files.write_json(folder / files.STATUS, {**status, "heartbeat": status["started"] + 90})
    add_evaluation(folder, Evaluation(1.7e9, "other.txt", "iter-4-ckpt", {"loss": 2.5}))
    write_log(folder, 210)
    expect(facts.locator("dd", has_text="1 min 30 s")).to_be_visible()
    expect(page.locator("table.values", has_text="other.txt")).to_be_visible()
    files.write_json(folder / files.STATUS, status)
    resumed = [{"time": status["started"] + 50, "step": 100, "after_step": 100}]
    run = files.read_json(folder / files.RUN)
    files.write_json(folder / files.RUN, {**run, "continued": resumed})
    (folder / "iter-150-ckpt.pth").write_bytes(b"x" * 10)
    expect(page.get_by_text("resumed after step 100")).to_be_visible()
    page.get_by_role("tab", name="Charts").click()
    drawn(page, 2)
    page.locator("#x-column").click()
    expect(page.get_by_role("option", name="train_loss")).to_be_visible()


def test_moving_a_run_directory_is_reported_on_its_open_page(dashboard: Served, open_page: Open) -> None:
    folder = make_run(dashboard.root, "one", 200, state="running", max_step=400)
    make_run(dashboard.root, "two", 200)
    alone = open_page(dashboard.address + "/run/one")
    beside = open_page(dashboard.address + "/compare?run=one&run=two")
    for page in (alone, beside):
        drawn(page, 2)
    folder.rename(dashboard.root / "renamed")
    for page in (alone, beside):
        expect(page.locator("#gone")).to_contain_text("one")
        expect(page.locator(".plot[data-drawn]")).not_to_have_count(0)
    alone.reload()
    expect(alone.get_by_text("No run is named one")).to_be_visible()


def test_the_run_page_has_a_strip_of_what_matters_and_where_in_the_users_code_it_failed(
    dashboard: Served, open_page: Open
) -> None:
    traceback = (
        "Traceback (most recent call last):\n"
        '  File "train.py", line 3, in <module>\n    run()\n'
        '  File "net.py", line 9, in run\n    raise ValueError("boom")\n'
        '  File "/venv/lib/python3.11/site-packages/torch/nn.py", line 1, in call\n    fail()\n'
        "ValueError: boom\n"
    )
    losses = {30: 0.125, 60: 0.0625}
    folder = make_run(
        dashboard.root, "one", 60, state="crashed", reason="ValueError: boom", traceback=traceback, losses=losses
    )
    (folder / "iter-50-ckpt.pth").write_bytes(b"x")
    page = open_page(dashboard.address + "/run/one")
    strip = page.locator("#run-progress")
    expect(strip.locator(".tile", has_text="Step").first).to_contain_text("60 / 60")
    tile = strip.locator(".tile", has_text="train_loss")
    expect(tile.locator("b")).to_have_text("0.0625")
    expect(tile).to_contain_text("best 0.0625 · step 60")
    expect(strip.locator(".tile", has_text="Last checkpoint")).to_contain_text("step 50")
    frame = page.locator("#run-ending pre").first
    expect(frame).to_be_visible()
    expect(frame).to_contain_text('File "net.py", line 9, in run')
    expect(frame).to_contain_text("ValueError: boom")
    for other in ("train.py", "site-packages"):
        expect(frame).not_to_contain_text(other)
    with (folder / files.LOG).open("a") as log:
        log.write(row(61, 0.03125) + "\n")
    expect(tile).to_contain_text("best 0.03125 · step 61")


def test_what_differs_from_the_parent_stands_out_defaults_are_dimmed_and_the_lineage_is_a_tree(
    dashboard: Served, open_page: Open
) -> None:
    make_run(dashboard.root, "parent", 20)
    folder = make_run(dashboard.root, "child", 20)
    info = files.read_json(folder / files.RUN)
    grandparent = {"parent": "<b>gone</b>", "parent_id": "x", "checkpoint": "iter-10-ckpt"}
    changes = {"lr": [0.1, 0.001], "model.width": [32, 64], "data.kind": ["text", "tensors"]}
    fork = {
        "parent": "parent",
        "checkpoint": "iter-20-ckpt",
        "step": 20,
        "changes": changes,
        "ancestors": [grandparent],
    }
    resumed = [{"time": STARTED + 50, "after_step": 12}]
    files.write_json(folder / files.RUN, {**info, "fork": fork, "settings_given": ["lr", "name"], "continued": resumed})
    samples = "".join(f"{second},{second},36\n" for second in (10, 20, 30, 40))
    (folder / files.SYSTEM_LOG).write_text(f"time,step,gpu0_power\n{samples}")
    page = open_page(dashboard.address + "/run/child?tab=config")
    differing = page.locator("tr.differs")
    expect(differing).to_have_count(2)
    expect(differing.nth(0)).to_contain_text("parent: 32")
    expect(differing.nth(1)).to_contain_text("parent: 0.1")
    expect(page.locator("tr.default th")).to_have_text(["device", "seed"])
    page.get_by_role("tab", name="Overview").click()
    spent = "0.3 Wh in 30 s (gpu0 0.3 Wh), whoever used the GPUs"
    expect(page.locator("dt", has_text="Energy").locator("+ dd")).to_have_text(spent)
    tree = page.locator(".tree").first
    expect(tree.locator("> li")).to_contain_text("<b>gone</b> · iter-10-ckpt")
    expect(tree.locator("li li li li")).to_contain_text("resumed after step 12")
    expect(tree).to_contain_text("lr 0.1 → 0.001")
    tree.get_by_role("link", name="parent").click()
    expect(page.get_by_role("heading", name="parent")).to_be_visible()
    page.get_by_role("tab", name="Overview").click()
    expect(page.locator(".tree .forks li")).to_have_text(["child · iter-20-ckpt"])
    page.get_by_role("tab", name="Prompt").click()
    expect(page.locator("#prompt")).to_have_value("[[0.5, 0.5]]")  # numbers in, as its model takes them
    expect(page.locator("#prompt-temperature")).to_have_count(0)
    page.goto(dashboard.address + "/compare?run=parent&run=child")
    said = "child: fork of parent:iter-20, lr 0.1 → 0.001, model.width 32 → 64, data.kind text → tensors"
    expect(page.locator("#forks-compared li")).to_have_text([said])
