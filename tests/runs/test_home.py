from __future__ import annotations

from pathlib import Path

import pytest

from darkit.errors import ConfigError
from darkit.runs.home import base, home

Environment = pytest.MonkeyPatch


def test_the_first_variable_wins(monkeypatch: Environment, tmp_path: Path) -> None:
    monkeypatch.setenv("DARWIN_KIT_HOME", str(tmp_path / "new"))
    monkeypatch.setenv("DSPIKE_HOME", str(tmp_path / "old"))
    assert home() == tmp_path / "new"
    assert base() == tmp_path / "new" / "base"


@pytest.mark.parametrize("unset", [True, False])
def test_the_older_variable_counts_where_the_first_is_empty_or_not_set(
    monkeypatch: Environment, tmp_path: Path, unset: bool
) -> None:
    monkeypatch.setenv("DARWIN_KIT_HOME", "")
    if unset:
        monkeypatch.delenv("DARWIN_KIT_HOME")
    monkeypatch.setenv("DSPIKE_HOME", str(tmp_path / "old"))
    assert home() == tmp_path / "old"


def test_without_variables_it_is_the_platforms_data_folder(monkeypatch: Environment, tmp_path: Path) -> None:
    monkeypatch.delenv("DARWIN_KIT_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert home() == tmp_path / "darkit"


def test_asking_for_the_home_makes_no_folder(home: Path) -> None:
    assert base() == home / "base"
    assert not home.exists()


def test_a_relative_home_is_below_the_working_folder(monkeypatch: Environment, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARWIN_KIT_HOME", "here")
    assert home() == tmp_path / "here"


def test_a_tilde_means_the_persons_home(monkeypatch: Environment, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DARWIN_KIT_HOME", "~/kit")
    assert home() == tmp_path / "kit"


def test_a_home_of_an_unknown_user_is_one_clear_error(monkeypatch: Environment) -> None:
    monkeypatch.setenv("DARWIN_KIT_HOME", "~nobody-of-this-name/kit")
    with pytest.raises(ConfigError, match="DARWIN_KIT_HOME is '~nobody-of-this-name/kit'"):
        home()
