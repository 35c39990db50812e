"""The tab of a run's modules, in a real browser."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Page, expect

from darkit.dashboard.texts import LANGUAGES
from darkit.runs import files
from darkit.runs.graph import Graph, Node, write_graph
from tests.dashboard.conftest import Served
from tests.dashboard.parts import make_run
from tests.dashboard.screen import assert_nothing_cut_off

Open = Callable[..., Page]
NODES = [
    Node("", "GPT", 1_757, False, 1, [(8, 5)], [(8, 5, 11)]),
    Node("embed", "Embedding", 24, True, 1, [(8, 5)], [(8, 5, 4)]),
    Node("blocks.0", "Block", 856, False, 2, [(8, 5, 4)], [(8, 5, 4), (8,), (), (2,)]),
    Node("blocks.0.norm", "<img src=x onerror=alert(1)>" + "n" * 260, 16, True, 1, [], [(8, 5, 4)]),
    Node("blocks", "ModuleList", 856, False),
]


def test_the_modules_are_a_tree_that_is_folded_below_its_second_level(dashboard: Served, open_page: Open) -> None:
    write_graph(make_run(dashboard.root, "tree", 5), Graph(NODES, 3))
    page = open_page(dashboard.address + "/run/tree?tab=graph")
    panel = page.get_by_role("tabpanel")
    lines = panel.locator(".module")
    expect(lines.first).to_have_text("(model) GPT 8 × 5 × 11 1,757 parameters")
    expect(panel.get_by_text("3 more modules are not shown.")).to_be_visible()
    block = panel.locator("summary", has_text="called 2")
    expect(block).to_have_text("0 Block 8 × 5 × 4, 8, 1, … 856 parameters called 2 times")
    norm = panel.locator(".module", has_text="norm")
    expect(norm).to_be_hidden()
    block.focus()
    page.keyboard.press("Enter")
    expect(norm).to_contain_text("<img src=x")
    assert not panel.locator("img").count()
    assert lines.all_inner_texts()[1].startswith("embed"), "in the order of the calls"
    expect(panel).to_contain_text("darkit show tree --graph")


def test_the_modules_fit_on_a_phone_in_chinese_and_in_the_dark(dashboard: Served, open_page: Open) -> None:
    deep = Node(".".join("part" for _ in range(60)), "Linear", 1, True, 1, [], [(1,)])
    folder = make_run(dashboard.root, "small", 5)
    write_graph(folder, Graph([*NODES, deep], unseen="torch.compile"))
    words = LANGUAGES["zh"]
    page = open_page(dashboard.address + "/run/small?tab=graph", wide=False, dark=True, locale="zh-CN")
    panel = page.get_by_role("tabpanel")
    expect(panel.get_by_text(words["graph_hint"])).to_be_visible()
    expect(panel.get_by_text(words["graph_unseen"].format(reason="torch.compile"))).to_be_visible()
    panel.locator("details").last.wait_for(state="attached")
    page.evaluate("document.querySelectorAll('.modules details').forEach((one) => { one.open = true; })")
    expect(panel.locator(".module").last).to_be_visible()
    assert_nothing_cut_off(page)


def test_a_run_without_the_record_says_what_to_do_and_one_without_a_model_has_no_tab(
    dashboard: Served, open_page: Open
) -> None:
    old = make_run(dashboard.root, "old", 0, state="running", step=0)
    page = open_page(dashboard.address + "/run/old?tab=graph")
    expect(page.get_by_role("tabpanel")).to_contain_text("No modules are recorded")
    expect(page.get_by_role("tabpanel")).to_contain_text("darkit show old --graph")
    write_graph(old, Graph(NODES))
    status = files.read_json(old / files.STATUS)
    files.write_json(old / files.STATUS, status | {"step": 6})
    expect(page.locator(".module").first).to_contain_text("GPT")  # without a reload
    folder = make_run(dashboard.root, "loop", 5)
    info = files.read_json(folder / files.RUN)
    files.write_json(folder / files.RUN, {key: value for key, value in info.items() if key != "model"})
    page.goto(dashboard.address + "/run/loop?tab=graph")
    expect(page.get_by_role("tab", name="Config")).to_be_visible()
    expect(page.get_by_role("tab", name="Modules")).to_have_count(0)
    write_graph(make_run(dashboard.root, "compiled", 5), Graph([Node("", "Net", 7, True)], unseen="compile=true"))
    page.goto(dashboard.address + "/run/compiled?tab=graph")
    expect(page.get_by_role("tabpanel")).to_contain_text("Shapes are not recorded: compile=true.")
    expect(page.locator(".module")).to_have_text("(model) Net 7 parameters")
