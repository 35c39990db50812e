"""The trainings of two processes beside those of one, with the same global batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import polars
import pytest
import torch
import torch.nn.functional as F

from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.runs import Run
from darkit.runs.log import read_log
from tests.benchmarks import collectives
from tests.children import Zygote
from tests.engine import oracles
from tests.engine.oracles import Normed
from tests.engine.parts import xy
from tests.engine.ranks import Noting, Numbered, on_ranks

CLOCK = ("time", "lr", "epoch")
Both = tuple[Path, dict[str, Any], list[dict[str, Any]]]


def both(zygote: Zygote, folder: Path, function: Any) -> Both:
    """Do the trainings in one process and in two; return their home, and what each returned."""
    one = on_ranks(zygote, folder / "one", function, ranks=1)[0]
    return folder, one, on_ranks(zygote, folder / "two", function)


@pytest.fixture(scope="module")
def trained(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return both(zygote, tmp_path_factory.mktemp("trained"), oracles.trainings)


@pytest.fixture(scope="module")
def validated(zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return both(zygote, tmp_path_factory.mktemp("validated"), oracles.validations)


def run_of(folder: Path, ranks: str, name: str) -> Run:
    return Run(folder / ranks / "base" / name)


def log_of(folder: Path, ranks: str, name: str) -> polars.DataFrame:
    return run_of(folder, ranks, name).log().drop(CLOCK)


def assert_same_log(folder: Path, name: str) -> None:
    one, two = (log_of(folder, ranks, name) for ranks in ("one", "two"))
    assert set(one.columns) == set(two.columns)
    for column in one.columns:
        found, expected = two[column], one[column]
        assert (found.is_null() == expected.is_null()).all(), column
        assert found.drop_nulls().to_list() == pytest.approx(expected.drop_nulls().to_list(), rel=1e-5, abs=1e-7), (
            column
        )


@pytest.mark.few(3)
@pytest.mark.parametrize("name", ["accumulated", "clipped", "plateau", "early", "uneven"])
def test_two_processes_end_with_the_weights_and_rows_of_one(trained: Both, name: str) -> None:
    folder, one, two = trained
    for key, expected in one[name]["weights"].items():
        torch.testing.assert_close(two[0][name]["weights"][key], expected, rtol=1e-5, atol=1e-6)
        assert torch.equal(two[0][name]["weights"][key], two[1][name]["weights"][key])
    assert_same_log(folder, name)


def test_all_processes_have_the_same_rates_and_end_at_the_same_step(trained: Both) -> None:
    _, one, two = trained
    assert two[0]["plateau"]["rates"] == two[1]["plateau"]["rates"] == one["plateau"]["rates"]
    assert len(set(one["plateau"]["rates"])) > 1, "the schedule did something"
    assert len(two[0]["early"]["rates"]) == len(two[1]["early"]["rates"]) == len(one["early"]["rates"]) < 40


def test_each_process_draws_random_numbers_of_its_own_and_their_mean_is_logged(trained: Both) -> None:
    folder, _, two = trained
    pairs = list(zip(two[0]["drawn"], two[1]["drawn"], strict=True))
    assert len({number for pair in pairs for number in pair}) == 2 * len(pairs)
    means = [sum(pair) / 2 for pair in pairs]
    assert log_of(folder, "two", "drawn")["drawn"].to_list() == pytest.approx(means)


def test_a_plain_module_under_lightnings_own_loop_validates_on_all_data(trained: Both) -> None:
    folder, *_ = trained
    one, two = (log_of(folder, ranks, "native") for ranks in ("one", "two"))
    for column in ("train_loss", "val_loss"):
        expected = one[column].drop_nulls().to_list()
        assert two[column].drop_nulls().to_list() == pytest.approx(expected, rel=1e-5), column
        assert expected, column


def test_clipping_and_averaging_did_something(trained: Both) -> None:
    folder, *_ = trained
    contents = [read_run_checkpoint(run_of(folder, ranks, "clipped").path)[1] for ranks in ("one", "two")]
    assert not torch.equal(contents[0]["state_dict"]["weight"], contents[0]["raw_state_dict"]["weight"])
    for key in ("state_dict", "raw_state_dict"):
        torch.testing.assert_close(contents[1][key]["weight"], contents[0][key]["weight"], rtol=1e-5, atol=1e-6)
    moved = (contents[0]["raw_state_dict"]["weight"] - oracles.embedding().weight).norm().item()
    assert moved <= 6 * 0.3 * 0.05 * 1.001, "six steps, each of at most the clipped length"


@pytest.mark.few(2)
@pytest.mark.parametrize("name", ["limited", "single", "loader", "stream", "metered"])
def test_a_validation_of_two_processes_has_the_result_of_one(validated: Both, name: str) -> None:
    folder, *_ = validated
    one, two = (log_of(folder, ranks, name).select(polars.selectors.starts_with("val_")) for ranks in ("one", "two"))
    assert set(one.columns) == set(two.columns)
    assert len(one.columns) > 1
    for column in one.columns:
        assert two[column].to_list() == pytest.approx(one[column].to_list(), rel=1e-6), column


@pytest.mark.parametrize("name", ["divided", "sampler"])
def test_data_that_someone_divided_is_evaluated_once(validated: Both, name: str) -> None:
    folder, *_ = validated
    one, two = log_of(folder, "one", "loader"), log_of(folder, "two", name)
    for column in ("val_loss", "val_accuracy"):
        assert two[column].to_list() == pytest.approx(one[column].to_list(), rel=1e-6), column


def test_the_first_picture_of_all_processes_is_kept(validated: Both) -> None:
    folder, *_ = validated
    media = [
        [path.read_bytes() for path in sorted((run_of(folder, ranks, "metered").path / "media").rglob("*.png"))]
        for ranks in ("one", "two")
    ]
    assert len(media[0]) == 1
    assert media[0] == media[1]


def test_running_statistics_are_those_that_are_saved(validated: Both) -> None:
    folder, _, two = validated
    first, second = (rank["normed"]["weights"] for rank in two)
    assert all(torch.equal(first[key], second[key]) for key in first)
    run = run_of(folder, "two", "normed")
    saved = Normed()
    saved.load_state_dict(read_run_checkpoint(run.path)[1]["state_dict"])
    x, y = xy(20)
    expected = F.mse_loss(saved.eval()(x), y).item()
    assert run.log()["val_loss"].to_list()[-1] == pytest.approx(expected, rel=1e-5)


def test_two_processes_resume_exactly_however_many_targets_the_step_before_had(trained: Both) -> None:
    _, _, two = trained
    assert torch.equal(two[0]["resumed"]["weights"]["weight"], two[0]["accumulated"]["weights"]["weight"])


def test_in_a_stock_trainer_the_log_has_the_mean_loss_too(zygote: Zygote, home: Path, tmp_path: Path) -> None:
    found = on_ranks(zygote, home, oracles.stock, folder=str(tmp_path))
    means = [sum(pair) / 2 for pair in zip(found[0]["losses"], found[1]["losses"], strict=True)]
    rows = read_log(tmp_path / "train_log.csv")
    assert rows["step"].to_list() == list(range(1, 41))
    assert rows["train_loss"].to_list() == pytest.approx(means, rel=1e-6)


def test_a_signal_to_one_process_stops_all_after_the_next_step(zygote: Zygote, home: Path) -> None:
    assert [found["batches"] for found in on_ranks(zygote, home, oracles.stopped)] == [6, 6]
    run = Run(home / "base" / "stopped")
    assert run.status == "stopped"
    assert run.checkpoints()[-1].step == 6
    assert run.log()["step"].to_list()[-1] == 6


def test_rows_of_which_processes_have_other_values_are_averaged_over_those_that_have_them(
    zygote: Zygote, home: Path
) -> None:
    for rank, found in enumerate(on_ranks(zygote, home, oracles.uneven_rows)):
        assert found["unlike"][1] == {"both": 0.75, "count": 8.0, "of_0": 7.0, "of_1": 7.0}
        assert found["unlike"][2 + rank] == {"both": 1.0}
        alike = found["alike"][1]
        assert (alike["both"], alike["count"]) == (0.75, 8.0)
        assert math.isnan(alike["nothing"])


def test_a_loss_that_is_not_finite_in_one_process_stops_all_after_the_same_step(zygote: Zygote, home: Path) -> None:
    found = on_ranks(zygote, home, oracles.not_finite)
    assert found[0] == found[1]
    assert found[0]["said"].startswith("The loss is not finite at step 3")
    assert found[0]["batches"] == 3
    assert [checkpoint.step for checkpoint in Run(home / "base" / "bad").checkpoints()] == [1, 2]


def messages(ranks: int) -> dict[str, Any]:
    """Count the messages of bare DDP and of darkit."""
    del ranks
    names = ("ddp", "darkit", "darkit_further", "ddp_4", "darkit_4")
    from darkit.engine.steps import agreement

    agreement.BLOCK = 1e9  # no exchange but at a save and at the end
    return {name: collectives.per_step(name, 4, 10) for name in names}


def test_a_step_costs_the_messages_of_the_strategy_and_no_other(zygote: Zygote, home: Path) -> None:
    for found in on_ranks(zygote, home, messages):
        per_step = {name: {kind: count for kind, count in kinds.items() if count} for name, kinds in found.items()}
        assert per_step["ddp"] == {"c10d::allreduce_": 1.0}
        assert per_step["darkit"] == per_step["darkit_further"] == per_step["ddp"]
        assert per_step["darkit_4"] == per_step["ddp_4"] == per_step["ddp"]


def test_the_harness_sees_what_each_process_was_given(zygote: Zygote, home: Path, tmp_path: Path) -> None:
    found = on_ranks(zygote, tmp_path, ids)
    together = [sorted(first + second) for first, second in zip(found[0]["ids"], found[1]["ids"], strict=True)]
    assert sorted(number for step in together for number in step) == list(range(24))
    assert together == [sorted(batch) for batch in ids(1)["ids"]], "the same samples at every step"


def ids(ranks: int) -> dict[str, Any]:
    """Return the numbers of the samples of each step."""
    model = Noting()
    oracles.train(model, Numbered(24), None, "ids", ranks, batch_size=8 // ranks, max_step=3)
    return {"ids": model.ids}
