from __future__ import annotations

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from darkit.errors import NameInvalidError, StorageError
from darkit.runs.names import check_name, create_fresh, fresh_name, is_name, resume_words, run_path, split_reference
from tests.runs.parts import line_of, names_in, python

anything = st.text(st.characters(), max_size=130)
nasty = st.text(st.sampled_from("./\\: ~-\x00\n\x7f\x85\u202e\u2028\udc80aé模"), max_size=12)


@given(st.one_of(anything, nasty))
@example("..")
@example("/etc")
@example("a/../..")
@example("模" * 100)
def test_an_accepted_name_is_a_folder_directly_below_the_root(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "base")
        root.mkdir()
        try:
            path = run_path(root, name)
        except NameInvalidError:
            assert not is_name(name)
            return
        assert is_name(name)
        path.mkdir()
        assert path.resolve().parent == root.resolve()
        assert names_in(root) == [name]
        assert names_in(Path(folder)) == ["base"]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "../a",
        "/absolute",
        "a\\b",
        "a:b",
        "a\x00b",
        "a\nb",
        "a\x85b",
        "a\u2028b",
        "invoice\u202egpt",
        " a",
        "a ",
        "a" * 101,
        "模" * 81,
        "a\udc80",
    ],
)
def test_a_name_that_cannot_be_a_folder_is_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(NameInvalidError, match=r"(?s)^The run name .* a name is 1 to 100 characters .*\.$") as caught:
        check_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["gpt-20261124-153012", "a" * 100, "模型", "two words", "a.b", "-x", "latest"])
def test_an_ordinary_name_is_accepted_as_it_is(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", [None, 3, b"gpt", Path("gpt"), ["gpt"]])
def test_a_name_that_is_not_text_is_refused_with_its_type(name: object) -> None:
    with pytest.raises(NameInvalidError, match=f"must be text, not {type(name).__name__}"):
        check_name(name)


@pytest.mark.parametrize("target", ["elsewhere", "missing", "root/gpt"])
def test_a_symbolic_link_in_the_place_of_a_run_is_refused(tmp_path: Path, target: str) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "gpt").symlink_to(tmp_path / target)
    with pytest.raises(NameInvalidError, match=r"'gpt' is a symbolic link in .*root; a run is a real folder"):
        run_path(root, "gpt")


@pytest.mark.parametrize(
    ("model", "stem"),
    [
        ("GPT", "gpt"),
        ("MyModel", "mymodel"),
        ("a.b/c d", "a-b-c-d"),
        ("模型", "run"),
        ("", "run"),
        ("__x__", "x"),
        ("a" * 59 + "--tail", "a" * 59),
    ],
)
def test_a_fresh_name_is_the_models_name_and_the_time(model: str, stem: str) -> None:
    name = fresh_name(model)
    assert re.fullmatch(re.escape(stem) + r"-\d{8}-\d{6}", name)
    assert check_name(name) == name


@given(anything)
def test_a_fresh_name_is_a_name_whatever_the_model_is_called(model: str) -> None:
    assert is_name(fresh_name(model) + "-99999")


def test_processes_that_want_a_fresh_name_at_once_all_get_their_own(tmp_path: Path) -> None:
    root = tmp_path / "not" / "there"
    script = """
        import sys
        from pathlib import Path
        from darkit.runs.names import create_fresh
        print("ready", flush=True)
        sys.stdin.readline()
        print(*[create_fresh(Path(sys.argv[1]), "GPT").name for _ in range(20)], flush=True)
    """
    with ExitStack() as stack:
        processes = [stack.enter_context(python(script, root)) for _ in range(4)]
        assert [line_of(process) for process in processes] == ["ready"] * 4
        for process in processes:
            print(file=process.stdin, flush=True)
        given_names = [name for process in processes for name in line_of(process).split()]
    assert len(given_names) == 80
    assert names_in(root) == sorted(set(given_names)) == sorted(given_names)
    assert all(re.fullmatch(r"gpt-\d{8}-\d{6}(-\d+)?", name) for name in given_names)
    assert any(re.fullmatch(r"gpt-\d{8}-\d{6}-2", name) for name in given_names)


def test_no_run_is_created_where_the_root_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("mine")
    with pytest.raises(StorageError, match=r"Cannot create a run in .*base: Not a directory"):
        create_fresh(tmp_path / "base", "GPT")
    assert (tmp_path / "base").read_text() == "mine"


def test_no_run_is_created_where_the_root_is_a_link_to_nowhere(tmp_path: Path) -> None:
    (tmp_path / "base").symlink_to(tmp_path / "nowhere")
    with pytest.raises(StorageError, match=r"root .*base is not a folder"):
        create_fresh(tmp_path / "base", "GPT")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("gpt", ("gpt", None)),
        ("gpt:", ("gpt", None)),
        ("gpt:iter-400-ckpt", ("gpt", "iter-400-ckpt")),
        ("gpt:400", ("gpt", "400")),
        ("gpt:a:b", ("gpt", "a:b")),
    ],
)
def test_a_reference_is_a_name_and_perhaps_a_checkpoint(reference: str, parts: tuple[str, str | None]) -> None:
    assert split_reference(reference) == parts


@pytest.mark.parametrize("reference", [":400", "../a:400", "", None, "/a"])
def test_a_reference_without_a_proper_name_is_refused(reference: object) -> None:
    with pytest.raises(NameInvalidError):
        split_reference(reference)


@pytest.mark.parametrize("name", ["true", "False", "null", "AUTO"])
def test_a_run_whose_name_resume_takes_for_something_else_is_resumed_by_its_name(name: str) -> None:
    assert resume_words(name) == f"name={name} resume=true"


def test_other_runs_are_resumed_as_a_shell_takes_it() -> None:
    assert resume_words("a b") == "resume='a b'"
    assert resume_words("truer") == "resume=truer"
