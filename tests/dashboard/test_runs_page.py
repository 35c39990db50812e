"""The page of all runs: its query and views, the charts beside the table, groups, a baseline, and the keyboard."""

from __future__ import annotations

import re
import statistics
import zipfile
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

import darkit.dashboard
from darkit.runs import files
from darkit.runs.notes import Notes, set_project, write_notes
from darkit.runs.numbers import number_text
from darkit.runs.statistics import t_critical
from tests.dashboard.conftest import Served
from tests.dashboard.parts import loss_at, make_run
from tests.dashboard.screen import assert_nothing_cut_off, drawn, trace

Open = Callable[..., Page]


def tick(page: Page, *names: str) -> None:
    for name in names:
        page.locator(f'.ag-row[row-id="{name}"] input[type=checkbox]').check()


def more(page: Page, word: str) -> None:
    page.locator("#more summary").click()
    page.locator("#more").get_by_role("button", name=word, exact=True).click()


def await_traces(page: Page, *names: str) -> None:
    plot = "document.querySelector(`[data-chart='train_loss'] .plot`)"
    shown = f"[...new Set({plot}.data.map((one) => one.meta.run))].sort().join()"
    page.wait_for_function(f"(names) => {plot}?.data && {shown} === names", arg=",".join(names))


def test_a_query_finds_runs_says_what_it_cannot_read_and_is_kept_as_a_view(dashboard: Served, open_page: Open) -> None:
    for seed, lr in enumerate([1e-2, 1e-2, 1e-3]):
        make_run(dashboard.root, f"run-{seed}", 60, seed=seed, lr=lr, state="crashed" if seed == 1 else "finished")
    write_notes(dashboard.root / "run-0", Notes(("paper",)))
    page = open_page(dashboard.address + "/")
    box, count, problem = page.locator("#search"), page.locator("#run-count"), page.locator("#query-problem")
    expect(count).to_have_text("3")
    for query, found in {
        "lr=0.0100": "2 of 3",
        "lr=1e-2 state:crashed": "1 of 3",
        "tag:paper": "1 of 3",
        "/RUN-[12]/": "2 of 3",
        "best:train_loss<9": "3",
        "started>yesterday": "0 of 3",
        "absturz or abgestürzt or 已崩溃": "1 of 3",
    }.items():
        box.fill(query)
        expect(count).to_have_text(found)
        expect(problem).to_be_hidden()
    box.fill("lr=1e-2 val_loss<")
    expect(problem).to_have_text("A value is missing after val_loss<")
    expect(page.locator(".query-wrong")).to_have_text("val_loss<")
    expect(box).to_have_attribute("aria-invalid", "true")
    expect(count).to_have_text("1 of 3")  # those of the query before
    box.fill("lr=1e-2 train_los<9")
    expect(problem).to_contain_text("Did you mean 'train_loss'?")
    expect(page.locator(".query-wrong")).to_have_text("train_los")
    box.fill("lr=1e-2")
    expect(count).to_have_text("2 of 3")
    expect(problem).to_be_hidden()
    page.locator("#views summary").click()
    page.get_by_placeholder("Name of this view").fill("coarse ones")
    page.get_by_placeholder("Name of this view").press("Enter")
    expect(page.locator(".view-row")).to_have_text("coarse ones✕")
    page.goto(dashboard.address + "/")
    expect(count).to_have_text("3")
    page.locator("#views summary").click()
    page.get_by_role("button", name="coarse ones", exact=True).click()
    expect(box).to_have_value("lr=1e-2")
    expect(count).to_have_text("2 of 3")
    page.locator("#views summary").click()
    page.get_by_label("Remove the view coarse ones").click()
    expect(page.locator(".view-row")).to_have_count(0)
    page.goto(dashboard.address + "/?lang=zh&q=val_loss%3C")
    expect(problem).to_have_text("val_loss< 后面缺少值。")


def test_the_charts_of_ticked_runs_and_of_the_one_pointed_at_are_beside_the_table(
    runs: Served, open_page: Open
) -> None:
    page = open_page(runs.address + "/?col=state&col=name&col=progress")
    expect(page.locator("#charts-hint")).to_be_visible()
    tick(page, "mlp-0", "mlp-3")
    drawn(page, 2)
    await_traces(page, "mlp-0", "mlp-3")
    eye = page.get_by_label("Curve of mlp-3")
    curve = "() => document.querySelector('[data-chart=train_loss] .plot').data.find((one) => one.meta.run === 'mlp-3')"
    expect(eye.locator(".run-dot")).to_be_visible()
    eye.click()
    page.wait_for_function(f"() => {curve}.visible === false")
    assert parse_qs(urlsplit(page.url).query)["hide"] == ["mlp-3"]
    eye.click()
    page.wait_for_function(f"() => {curve}.visible === true")
    page.locator('.ag-row[row-id="mlp-0"] .ag-cell[col-id="progress"]').click()
    page.wait_for_function(f"() => {curve}.opacity < 0.5")  # mlp-0 stands out
    page.locator('.ag-row[row-id="mlp-5"] .ag-cell[col-id="progress"]').hover()
    await_traces(page, "mlp-0", "mlp-3", "mlp-5")
    assert trace(page, "train_loss", "mlp-5")["y"]
    page.locator("h1").hover()
    await_traces(page, "mlp-0", "mlp-3")
    assert_nothing_cut_off(page)
    page.reload()
    drawn(page, 2)
    await_traces(page, "mlp-0", "mlp-3")
    page.locator("#show-charts").click()
    expect(page.locator("#charts-side")).to_be_hidden()
    assert parse_qs(urlsplit(page.url).query)["side"] == ["0"]


def test_the_first_columns_are_the_main_metric_with_its_numbers_aligned_and_the_keys_that_differ(
    runs: Served, open_page: Open
) -> None:
    page = open_page(runs.address + "/")
    expect(page.locator('.ag-row[row-id="mlp-5"]').first).to_be_visible()
    shown = page.evaluate("darkit.table.grid.getAllDisplayedColumns().map((one) => one.getColId())")
    assert shown == [
        *(
            "ag-Grid-SelectionColumn",
            "eye",
            "state",
            "name",
            "best:val_loss",
            "last:val_loss",
        ),
        *("config:model.width", "config:trainer.lr", "config:trainer.seed"),
        *("progress", "duration", "started", "tags"),
    ]
    cells = page.locator('.ag-center-cols-container .ag-cell[col-id="last:val_loss"]')
    after = {len(text.replace("\u2008", ".").rpartition(".")[2]) for text in cells.all_text_contents() if text != "NaN"}
    assert len(after) == 1
    assert page.evaluate("document.querySelector('.ag-row').offsetHeight") == 30
    assert page.locator("#grid-box .progress").count() == 0  # nothing is running


def test_groups_show_mean_and_deviation_and_a_baseline_the_differences(dashboard: Served, open_page: Open) -> None:
    for seed in range(6):
        state = "finished" if seed else "stopped"
        make_run(
            dashboard.root,
            f"run-{seed}",
            100,
            seed=seed,
            lr=[0.1, 0.01][seed % 2],
            config={"width": 64},
            state=state,
        )
    page = open_page(f"{dashboard.address}/?col=name&col=last:train_loss&by=trainer.lr")
    groups = page.locator(".group-name")
    expect(groups).to_have_count(2)
    expect(groups.first).to_contain_text("lr=")
    losses = [loss_at(100, 100, seed) for seed in (0, 2, 4)]
    row = page.locator(".ag-row", has=page.locator(".spread")).filter(has_text=number_text(statistics.mean(losses)))
    expect(row).to_contain_text(f"± {number_text(statistics.stdev(losses), 2)} (3)")
    expect(page.locator(".ag-header-cell-text", has_text="train_loss")).to_have_text("train_loss · last ± std")
    page.locator("#spread-box label", has_text="± 95 % CI").click()
    half = (statistics.stdev(losses) / 3**0.5) * t_critical(0.05, 2)
    expect(row).to_contain_text(f"± {number_text(half, 2)} (3)")
    expect(page.locator(".ag-header-cell-text", has_text="train_loss")).to_have_text("train_loss · last ± 95 % CI")
    assert parse_qs(urlsplit(page.url).query)["spread"] == ["ci"]
    page.get_by_role("button", name="lr=0.1").click()
    expect(page.locator("a.run-link")).to_have_count(3)
    expect(groups.filter(has_text="lr=0.1 ")).to_contain_text("▾")
    names = page.locator("[col-id=name].ag-cell").all_inner_texts()
    place = next(number for number, name in enumerate(names) if "lr=0.1" in name)
    assert sorted(names[place + 1 : place + 4]) == ["run-0", "run-2", "run-4"]
    page.locator(".ag-row", has_text="lr=0.01").locator("input[type=checkbox]").check()
    expect(page.locator("#selected-count")).to_have_text("3 selected")
    drawn(page, 1)
    assert page.evaluate("document.querySelector('[data-chart=train_loss] .plot').data.length") > 0
    page.goto(f"{dashboard.address}/?col=name&col=state&col=last:train_loss&by=*")
    expect(groups).to_have_count(2)  # all but the seed
    for seed in range(6, 8):  # which differ in a key that no other run has
        make_run(dashboard.root, f"run-{seed}", 100, seed=seed, lr=0.1, config={"depth": [48, "[<b>*]"][seed % 2]})
    expect(groups).to_have_count(4)
    for label in ("lr=0.1  width=64 (3)", "lr=0.01  width=64 (3)", "depth=48", "depth=[<b>*]"):
        expect(groups.filter(has_text=re.compile(re.escape(label)))).to_have_count(1)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for kind, label in {
        "Markdown": "depth=\\[\\<b\\>\\*\\]",
        "LaTeX": "depth={[}\\textless{}b\\textgreater{}*]",
    }.items():
        page.locator("#copy-table summary").click()
        page.get_by_role("button", name=f"Table as {kind}").click()
        expect(page.get_by_text("a table of 4 rows").last).to_be_visible()
        page.wait_for_function(
            "(label) => navigator.clipboard.readText().then((text) => text.includes(label))", arg=label
        )
        assert "state_" not in page.evaluate("navigator.clipboard.readText()"), "runs of different states have none"
    page.goto(f"{dashboard.address}/?col=name&col=last:train_loss&col=step:train_loss&sort=step:train_loss.asc")
    best = page.locator('.ag-center-cols-container .ag-row[row-id="run-4"] [col-id="step:train_loss"]')
    loss, step = min((loss_at(step, 100, 4), step) for step in range(1, 101))
    expect(best).to_have_text(re.compile(re.escape(number_text(loss)) + "[\u2007\u2008]* @" + str(step)))
    tick(page, "run-1")
    more(page, "Baseline")
    pinned = page.locator(
        '.ag-floating-top [row-id] [col-id="last:train_loss"], .ag-floating-top .ag-cell[col-id="last:train_loss"]'
    )
    expect(pinned.first).to_contain_text(number_text(loss_at(100, 100, 1)))
    share = 100 * (loss_at(100, 100, 4) - loss_at(100, 100, 1)) / loss_at(100, 100, 1)
    cell = page.locator('.ag-center-cols-container .ag-row[row-id="run-4"] [col-id="last:train_loss"] .difference')
    expect(cell).to_have_text(f"{'−' if share < 0 else '+'}{number_text(abs(share), 3)}%")
    assert parse_qs(urlsplit(page.url).query)["baseline"] == ["run-1"]


def test_the_quantiles_of_the_pages_script_are_those_of_the_statistics() -> None:
    script = (Path(darkit.dashboard.__file__).parent / "assets" / "groups.js").read_text()
    table = re.search(r"const T = \[.*?\n(.*?),\n  \];", script, re.DOTALL)
    assert table is not None
    found = [float(number) for number in table[1].split(",")]
    assert found == pytest.approx([t_critical(0.05, freedom) for freedom in [*range(1, 41), 60, 120, 1e9]], rel=1e-5)


def test_the_keyboard_moves_ticks_compares_and_finds(runs: Served, open_page: Open) -> None:
    page = open_page(f"{runs.address}/?sort=name.asc&col=name&col=last:val_loss&col=config:trainer.lr")
    expect(page.locator('.ag-row[row-id="mlp-5"]').first).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Help")).to_contain_text("Tick the run")
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_have_count(0)
    page.get_by_role("button", name="Help").click()
    page.get_by_role("button", name="state:crashed").click()
    expect(page.locator("#run-count")).to_have_text("1 of 7")
    page.locator("#search").fill("")
    expect(page.locator("#run-count")).to_have_text("7")
    page.locator("#search").blur()
    for key in "jjxjx":  # the second and the third row
        page.keyboard.press(key)
    expect(page.locator("#selected-count")).to_have_text("2 selected")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for kind, start in {
        "Markdown": "| Name | val_loss · last | trainer.lr |\n| --- | --- | --- |\n| mlp-0 | ",
        "LaTeX": "\\begin{tabular}{lll}\n\\toprule\nName & val\\_loss · last & trainer.lr \\\\\n\\midrule\nmlp-0 & ",
        "CSV": "Name,val_loss · last,trainer.lr\nmlp-0,",
    }.items():
        page.locator("#copy-table summary").click()
        page.get_by_role("button", name=f"Table as {kind}").click()
        expect(page.get_by_text("a table of 2 rows").last).to_be_visible()
        copied = page.evaluate("navigator.clipboard.readText()").replace("\r\n", "\n")
        assert copied.startswith(start), copied
        assert "mlp-1" in copied
        assert "mlp-2" not in copied
    page.locator("#search").fill("mlp-5")  # which is not ticked, as none that is shown
    expect(page.locator("#run-count")).to_have_text("1 of 7")
    page.locator("#copy-table summary").click()
    page.get_by_role("button", name="Table as CSV").click()
    expect(page.get_by_text("a table of 1 row").last).to_be_visible()
    assert "mlp-5" in page.evaluate("navigator.clipboard.readText()")
    page.locator("#search").fill("")
    expect(page.locator("#run-count")).to_have_text("7")
    page.locator("#search").blur()
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#search")).not_to_be_focused()
    page.keyboard.press("c")
    expect(page.get_by_role("heading", name="Comparison of 2 runs")).to_be_visible()
    drawn(page, 2)
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="A run or a command").fill("mlp 5")
    expect(page.get_by_role("option")).to_have_text(["mlp-5"])
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="mlp-5")).to_be_visible()
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.locator("#grid-box[data-filled='7']")).to_have_count(1)
    tick(page, "mlp-2")
    page.keyboard.press("Escape")
    expect(page.locator("#selection-bar")).to_be_hidden()


def test_names_of_a_sweep_keep_what_tells_them_apart_and_a_phone_shows_the_main_metric(
    dashboard: Served, open_page: Open
) -> None:
    for seed, lr in enumerate(["0.001", "0.003"]):
        name = f"a-long-name-of-a-sweep-of-gpt-on-stories-lr={lr}"
        folder = make_run(dashboard.root, name, 60, seed=seed)
        files.write_json(folder / files.RUN, {**files.read_json(folder / files.RUN), "group": "sweep"})
    page = open_page(dashboard.address + "/?col=name&col=group")
    for lr in ("0.001", "0.003"):
        tail = page.locator(f'.ag-row[row-id$="lr={lr}"] .name-tail')
        expect(tail).to_have_text(f"lr={lr}")
        assert tail.evaluate("(one) => one.scrollWidth <= one.clientWidth + 1")
    head = page.locator(".name-head").first
    assert head.evaluate("(one) => one.scrollWidth > one.clientWidth")  # left out in the middle
    for seed in range(2):
        make_run(dashboard.root, f"gpt-medium-lr0.0003-seed{seed}", 60, seed=seed)  # of no sweep
    for seed in range(2):
        tail = page.locator(f'.ag-row[row-id$="seed{seed}"] .name-tail')
        expect(tail).to_have_text(f"lr0.0003-seed{seed}")
        assert tail.evaluate("(one) => one.scrollWidth <= one.clientWidth + 1")
    phone = open_page(dashboard.address + "/", wide=False)
    cell = phone.locator('.ag-cell[col-id="last:val_loss"]').first
    expect(cell).to_be_visible()
    box = cell.bounding_box()
    assert box is not None
    assert box["x"] + box["width"] <= 390
    tail = phone.locator('.ag-row[row-id$="seed1"] .name-tail')
    assert tail.evaluate("(one) => one.scrollWidth <= one.clientWidth + 1")
    phone.locator(".ag-row input[type=checkbox]").first.check()
    bar = phone.locator("#selection-bar").bounding_box()
    assert bar is not None
    assert abs(bar["y"] + bar["height"] - 844) < 2
    assert bar["width"] == 390
    assert_nothing_cut_off(phone)


def test_several_runs_are_deleted_brought_back_renamed_moved_and_lose_tags(
    dashboard: Served, open_page: Open, tmp_path: Path
) -> None:
    for name in "abcd":
        write_notes(make_run(dashboard.root, name, 20), Notes((f"of-{name}", "all")))
    set_project(dashboard.root / "d", "vision")
    page = open_page(dashboard.address + "/?col=name&col=tags&col=project", downloads=True)
    tick(page, "a", "b")
    with page.expect_download() as download:
        more(page, "Export logs (ZIP)")
    download.value.save_as(tmp_path / "runs.zip")
    with zipfile.ZipFile(tmp_path / "runs.zip") as archive:
        assert {"a/train_log.csv", "b/run.json", "b/trainer_config.json"} <= set(archive.namelist())
        assert archive.read("a/train_log.csv") == (dashboard.root / "a/train_log.csv").read_bytes()
    page.get_by_role("button", name="Tags and note").click()
    page.locator("#tags-away").click()
    page.get_by_role("option", name="of-a").click()

    page.get_by_role("button", name="Save").click()
    expect(page.locator(".tag", has_text="of-a")).to_have_count(0)
    expect(page.locator(".tag", has_text="of-b")).to_have_count(1)
    more(page, "Move to a project")
    page.locator("#move-project").fill("vision")
    page.locator("#move-project").press("Tab")
    page.locator("#move-now").click()
    expect(page.get_by_text("Moved 2 runs to the project vision")).to_be_visible()
    expect(page.locator('.ag-cell[col-id="project"]', has_text="vision")).to_have_count(3)
    page.locator("#delete").click()
    expect(page.get_by_role("dialog", name="Delete 2 runs?")).to_be_visible()
    expect(page.locator("#delete-text")).to_have_text("a, b")
    page.locator("#delete-name").fill("3")
    expect(page.locator("#delete-now")).to_be_disabled()
    page.locator("#delete-name").fill("2")
    page.locator("#delete-now").click()
    expect(page.locator("#run-count")).to_have_text("2")
    assert sorted(folder.name for folder in dashboard.root.iterdir()) == ["c", "d"]
    page.locator("#open-trash").click()
    expect(page.locator("#trash-list [data-moment]").first).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d$"))
    page.get_by_role("button", name="Restore a").click()
    expect(page.get_by_text("Restored: a")).to_be_visible()
    expect(page.locator("#trash-list tbody tr")).to_have_count(1)
    page.keyboard.press("Escape")
    expect(page.locator("#run-count")).to_have_text("3")
    tick(page, "a")
    more(page, "Rename")
    expect(page.locator("#rename-name")).to_have_value("a")
    page.locator("#rename-name").fill("c")
    page.locator("#rename-now").click()
    expect(page.get_by_text("already exists")).to_be_visible()
    page.locator("#rename-name").fill("better")
    page.locator("#rename-now").click()
    expect(page.locator('.ag-row[row-id="better"]').first).to_be_visible()
    assert (dashboard.root / "better/run.json").exists()
