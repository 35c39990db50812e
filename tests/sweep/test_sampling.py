"""Suggestions: of each sampler, and that they depend on nothing but what they may see."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from darkit.errors import ConfigError
from darkit.sweep.journal import as_seen
from darkit.sweep.sampling import Suggestions, trials_of
from darkit.sweep.settings import SweepSettings
from darkit.sweep.space import split_space

SPACE = split_space(["lr=interval(1e-4,1e-1,log)", "n=range(1,9,2)", "o=adam,sgd"])[1]
DISCRETE = split_space(["n=range(1,9,2)", "o=adam,sgd"])[1]


def settings(**values: Any) -> SweepSettings:
    return SweepSettings(**values)


def run(made: Suggestions, count: int, jobs: int = 1, *, afresh: bool = False) -> list[dict[str, Any]]:
    """Suggest trials whose objective is the distance from lr=0.01; with ``afresh`` each by a new object."""
    trials: list[FrozenTrial] = []
    for number in range(count):
        if afresh:
            made = Suggestions(made.settings, SPACE, made.direction)
        suggestion = made.suggest(number, as_seen(trials, number - jobs + 1))
        trial = create_trial(
            value=abs(suggestion.params.get("lr", 0) - 0.01),
            params=suggestion.params,
            distributions=made.distributions,
            system_attrs=suggestion.attributes,
        )
        trial.number = number
        trials.append(trial)
    return [trial.params for trial in trials]


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
def test_a_sampler_suggests_the_same_again_also_from_the_middle(sampler: str) -> None:
    first = run(Suggestions(settings(sampler=sampler), SPACE, "min"), 14)
    again = run(Suggestions(settings(sampler=sampler), SPACE, "min"), 14, afresh=True)
    assert again == first
    assert len({params["lr"] for params in first}) == 14
    assert all(1e-4 <= params["lr"] <= 1e-1 and params["n"] in (1, 3, 5, 7) for params in first)
    other = run(Suggestions(settings(sampler=sampler, seed=1), SPACE, "min"), 14)
    assert other != first


def test_tpe_learns_from_what_it_sees_and_random_does_not() -> None:
    learning, blind = (Suggestions(settings(sampler=name), SPACE, "min") for name in ("tpe", "random"))
    assert (learning.learns, blind.learns) == (True, False)
    late = [abs(params["lr"] - 0.01) for params in run(learning, 40)[20:]]
    early = [abs(params["lr"] - 0.01) for params in run(blind, 40)[20:]]
    assert sorted(late)[10] < sorted(early)[10]


def test_with_several_jobs_the_last_trials_count_as_running() -> None:
    made = Suggestions(settings(jobs=3), SPACE, "min")
    first = run(made, 16, jobs=3)

    def trial(number: int, value: float) -> FrozenTrial:
        found = create_trial(value=value, params=first[number], distributions=made.distributions)
        found.number = number
        return found

    values = [trial(number, abs(first[number]["lr"] - 0.01)) for number in range(15)]
    assert made.suggest(15, as_seen(values, 13)).params == first[15]
    values[13:] = [trial(13, -100), trial(14, -200)]
    assert made.suggest(15, as_seen(values, 13)).params == first[15], "their results are not seen"
    assert [seen.state for seen in as_seen(values, 13)[12:]] == [
        *(TrialState.COMPLETE, TrialState.RUNNING, TrialState.RUNNING)
    ]


def test_a_grid_is_every_combination_once() -> None:
    made = Suggestions(settings(sampler="grid"), DISCRETE, "min")
    assert trials_of(made.settings, DISCRETE) == 8
    found = {(params["n"], params["o"]) for params in run(made, 8)}
    assert found == {(n, o) for n in (1, 3, 5, 7) for o in ("adam", "sgd")}


def test_the_number_of_trials() -> None:
    assert trials_of(settings(), SPACE) == 20
    assert trials_of(settings(), DISCRETE) == 8
    assert trials_of(settings(trials=3), DISCRETE) == 3
    assert trials_of(settings(sampler="grid", trials=99), DISCRETE) == 8
    assert trials_of(settings(), []) == 1


def test_a_sampler_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="but lr is an interval"):
        Suggestions(settings(sampler="grid"), SPACE, "min")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "cmaes" else name)
    with pytest.raises(ConfigError, match="needs the package cmaes: pip install cmaes"):
        Suggestions(settings(sampler="cmaes"), SPACE, "min")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs Optuna: pip install 'darkit\[sweep\]'"):
        Suggestions(settings(), SPACE, "min")
