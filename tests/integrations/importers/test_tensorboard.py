"""TensorBoard's event folders: what torch's writer writes is what the run holds, compared with TensorBoard's reader."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.compat.proto.tensor_pb2 import TensorProto
from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
from tensorboard.compat.proto.types_pb2 import DT_FLOAT, DT_STRING
from tensorboard.plugins.histogram.summary_v2 import histogram_pb
from tensorboard.plugins.scalar.summary_v2 import scalar_pb
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard import SummaryWriter

from darkit.cli.main import main
from darkit.integrations.importers.events import crc32c
from darkit.runs import Run, base, load
from darkit.runs.media import read_media, read_medium
from tests.integrations.importers.parts import command, expected, imported, only_run, points, tree


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("events") / "exp"
    numbers = np.random.default_rng(0)
    with SummaryWriter(str(folder)) as writer:
        for step in range(20):
            writer.add_scalar("loss", 1 / (step + 1), step)
            if step % 5 == 0:
                writer.add_scalar("val/acc", step / 20, step)
        for step, value in ((3, math.nan), (4, math.inf), (4, 5.0), (1, -math.inf)):  # out of order, and twice
            writer.add_scalar("odd", value, step)
        writer.add_scalar("as a tensor", 2.5, 7, new_style=True)
        writer.add_scalar("step", 1.0, 2)
        writer.add_text("note", "hello *world*\nsecond line", 2)
        writer.add_image("picture", numbers.integers(0, 255, (3, 8, 8), np.uint8), 1)
        writer.add_histogram("weights", numbers.normal(size=1000), 3)
        writer.add_audio("sound", torch.linspace(-1, 1, 800)[None], 4)
        writer.add_graph(torch.nn.Linear(2, 2), torch.zeros(1, 2))
    return folder


@pytest.fixture
def events(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "exp"))


def scalars(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    return {tag: [(one.step, one.value) for one in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}


def test_scalars_are_those_of_tensorboards_reader(events: Path) -> None:
    (outcome,) = imported(events)
    run = load(outcome.name)
    found = points(run)
    wanted = expected(scalars(events))
    wanted["logged_step"] = wanted.pop("step")  # the run's own clock has this name
    assert found.pop("as a tensor") == [(7, 2.5)]
    assert found == wanted
    assert len(found["odd"]) == 4
    assert run.info["origin"]["kind"] == "tensorboard"
    assert run.info["origin"]["path"] == str(events)
    assert (run.status, run.details.step) == ("unknown", 19)
    assert "do not say how" in run.details.reason
    assert any("graph_def" in problem for problem in outcome.problems)


def test_wall_times_are_kept(events: Path) -> None:
    imported(events)
    log = only_run().log()
    reader = EventAccumulator(str(events)).Reload()
    moments = {one.step: one.wall_time for one in reader.Scalars("loss")}
    assert {row["step"]: row["time"] for row in log.iter_rows(named=True) if row["loss"] is not None} == moments


def test_media_are_those_of_tensorboards_reader(events: Path) -> None:
    imported(events)
    run = only_run()
    media = {medium.key: medium for medium in read_media(run.path)}
    reader = EventAccumulator(str(events)).Reload()
    assert set(media) == {"note/text_summary", "picture", "weights", "sound"}
    (image,) = reader.Images("picture")
    assert read_medium(run.path, media["picture"]) == image.encoded_image_string
    assert (media["picture"].step, media["picture"].time) == (image.step, image.wall_time)
    (sound,) = reader.Audio("sound")
    assert read_medium(run.path, media["sound"]) == sound.encoded_audio_string
    (text,) = reader.Tensors("note/text_summary")
    assert read_medium(run.path, media["note/text_summary"]) == text.tensor_proto.string_val[0]
    histogram = json.loads(read_medium(run.path, media["weights"]))
    (wanted,) = reader.Histograms("weights")
    assert sum(histogram["counts"]) == 1000
    assert (histogram["edges"][0], histogram["edges"][-1]) == (wanted.histogram_value.min, wanted.histogram_value.max)
    used = [index for index, count in enumerate(wanted.histogram_value.bucket) if count]
    assert histogram["counts"] == wanted.histogram_value.bucket[used[0] : used[-1] + 1]
    assert histogram["edges"][1:-1] == wanted.histogram_value.bucket_limit[used[0] : used[-1]]


def test_the_source_is_not_touched_and_a_second_import_writes_nothing(events: Path) -> None:
    before = tree(events)
    imported(events)
    assert tree(events) == before
    runs = tree(base())
    (outcome,) = imported(events)
    assert (outcome.action, tree(base())) == ("unchanged", runs)
    assert tree(events) == before


def test_what_was_logged_since_is_added(tmp_path: Path) -> None:
    folder = tmp_path / "growing"
    writer = SummaryWriter(str(folder))
    writer.add_scalar("loss", 1.0, 0)
    writer.add_text("note", "one", 0)
    writer.flush()
    imported(folder)
    run = only_run()
    first = (run.path / "train_log.csv").read_bytes()
    writer.add_scalar("loss", 0.5, 1)
    writer.add_text("note", "two", 1)
    writer.close()
    (outcome,) = imported(folder)
    assert (outcome.action, outcome.new_rows, outcome.media) == ("updated", 1, 1)
    assert (run.path / "train_log.csv").read_bytes().startswith(first)
    assert points(run)["loss"] == [(0, 1.0), (1, 0.5)]
    assert [medium.step for medium in read_media(run.path)] == [0, 1]
    assert only_run().info["origin"]["first_imported_at"] < only_run().info["origin"]["imported_at"]


def test_a_restart_drops_what_is_logged_again(tmp_path: Path) -> None:
    folder = tmp_path / "restarted"
    with SummaryWriter(str(folder), filename_suffix=".1") as writer:
        for step in range(6):
            writer.add_scalar("loss", float(step), step)
            writer.add_text("note", f"first {step}", step)
    imported(folder)
    assert len(points(only_run())["loss"]) == 6
    with SummaryWriter(str(folder), purge_step=3, filename_suffix=".2") as writer:
        writer.add_scalar("loss", 33.0, 3)
        writer.add_text("note", "second 3", 3)
    assert sorted(folder.iterdir())[0].name.endswith(".1")
    (outcome,) = imported(folder)
    run = only_run()
    assert outcome.action == "updated"
    assert points(run) == expected(scalars(folder))
    assert points(run)["loss"] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 33.0)]
    texts = [read_medium(run.path, medium).decode() for medium in read_media(run.path)]
    assert texts == ["first 0", "first 1", "first 2", "second 3"]


def test_every_nested_folder_is_a_run_with_its_hyperparameters(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path / "logs" / "a")) as writer:
        writer.add_scalar("loss", 1.0, 0)
        writer.add_hparams({"lr": 0.1, "optimizer": "sgd", "nesterov": True}, {"best": 0.3}, run_name="trial")
    with SummaryWriter(str(tmp_path / "logs" / "b")) as writer:
        writer.add_scalars("pair", {"x": 1.0, "y": 2.0}, 3)
    outcomes = {outcome.name: outcome.action for outcome in imported(tmp_path / "logs")}
    assert outcomes.pop("logs-b") == "empty"  # nothing was logged in the folder itself
    assert outcomes == dict.fromkeys(["logs-a", "logs-a-trial", "logs-b-pair_x", "logs-b-pair_y"], "imported")
    assert load("logs-a-trial").config == {"lr": 0.1, "optimizer": "sgd", "nesterov": True}
    assert points(load("logs-a-trial"))["best"] == [(0, pytest.approx(0.3))]
    assert points(load("logs-b-pair_y")) == {"pair": [(3, 2.0)]}


@pytest.mark.parametrize("cut", [1, 5, 13, 200])
def test_a_torn_file_is_read_up_to_its_last_whole_record(events: Path, cut: int) -> None:
    (file,) = events.iterdir()
    whole = scalars(events)
    file.write_bytes(file.read_bytes()[:-cut])
    (outcome,) = imported(events)
    assert any("half written" in problem for problem in outcome.problems)
    assert only_run().info["origin"]["problems"] == list(outcome.problems)
    assert points(only_run(), ["loss"]) == expected({"loss": whole["loss"]})


def test_a_damaged_record_ends_the_reading_of_its_file_only(events: Path) -> None:
    (file,) = events.iterdir()
    data = bytearray(file.read_bytes())
    data[len(data) // 50] ^= 0xFF
    file.write_bytes(data)
    with SummaryWriter(str(events), filename_suffix=".later") as writer:
        writer.add_scalar("loss", 9.0, 100)
    (outcome,) = imported(events)
    assert any("damaged" in problem for problem in outcome.problems)
    assert points(only_run())["loss"][-1] == (100, 9.0)


def test_a_file_without_any_record_is_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "events.out.tfevents.1").write_bytes(b"\xff" * 100)
    assert command(tmp_path / "logs") == 1
    assert "Nothing could be read" in capsys.readouterr().err
    assert not base().exists() or not list(base().iterdir())


def test_links_are_not_followed(events: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "linked").symlink_to(events)
    (tmp_path / "logs" / "events.out.tfevents.2").symlink_to(next(events.iterdir()))
    (tmp_path / "logs" / "real").mkdir()
    shutil.copy(next(events.iterdir()), tmp_path / "logs" / "real")
    assert [outcome.name for outcome in imported(tmp_path / "logs")] == ["logs-real"]


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283


def test_a_run_is_readable_by_everything(events: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imported(events, name="it")
    for words in (["runs"], ["show", "it"], ["verify", "it"]):
        assert main(words) == 0
    assert "unknown" in capsys.readouterr().out
    assert main(["predict", "it", "x"]) == 2
    assert "it" in capsys.readouterr().err
    assert isinstance(load("it"), Run)


def write_events(path: Path, events: list[Event]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        writer = RecordWriter(file)
        for event in events:
            writer.write(event.SerializeToString())
        writer.flush()


def test_tensors_of_tensorflow_are_scalars_texts_images_and_histograms(tmp_path: Path) -> None:
    picture = TensorProto(dtype=DT_STRING, string_val=[b"2", b"2", b"\x89PNG\r\n\x1a\none", b"\x89PNG\r\n\x1a\ntwo"])
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="images"))
    odd = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="pr_curves"))
    summaries = [
        scalar_pb("scalar", 0.1),
        text_pb("text", "words"),
        histogram_pb("histogram", np.asarray([1.0, 1.0, 2.0, 5.0]), buckets=4),
        Summary(value=[Summary.Value(tag="pictures", metadata=plugin, tensor=picture)]),
        Summary(value=[Summary.Value(tag="curves", metadata=odd, tensor=TensorProto(dtype=DT_STRING))]),
    ]
    events = [Event(wall_time=1.0, file_version="brain.Event:2")]
    events += [Event(wall_time=5.0, step=3, summary=summary) for summary in summaries]
    later = Summary(value=[Summary.Value(tag="scalar", tensor=scalar_pb("scalar", 7).value[0].tensor)])
    events.append(Event(wall_time=6.0, step=4, summary=later))  # without metadata, as all but the first are
    write_events(tmp_path / "tf" / "events.out.tfevents.1", events)
    (outcome,) = imported(tmp_path / "tf")
    run = only_run()
    assert points(run) == {"scalar": [(3, np.float32(0.1).item()), (4, 7.0)]}
    media = {medium.key: read_medium(run.path, medium) for medium in read_media(run.path)}
    assert set(media) == {"text", "histogram", "pictures/0", "pictures/1"}
    assert (media["text"], media["pictures/1"]) == (b"words", b"\x89PNG\r\n\x1a\ntwo")
    assert json.loads(media["histogram"]) == {"edges": [1.0, 2.0, 3.0, 4.0, 5.0], "counts": [2, 1, 0, 1]}
    assert any("pr_curves (1)" in problem for problem in outcome.problems)


def test_old_files_drop_what_is_logged_again_by_tensorboards_rule(tmp_path: Path) -> None:
    def event(step: int, **values: float) -> Event:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        return Event(wall_time=float(step), step=step, summary=summary)

    events = [event(step, a=float(step), b=float(step)) for step in range(6)]
    events += [event(3, a=30.0), event(4, a=40.0), event(6, a=60.0, b=60.0)]
    write_events(tmp_path / "old" / "events.out.tfevents.1", events)
    imported(tmp_path / "old")
    assert points(only_run()) == expected(scalars(tmp_path / "old"))
    assert points(only_run())["a"] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (6, 60.0)]


def test_a_tensor_that_claims_to_be_huge_costs_nothing(tmp_path: Path) -> None:
    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=2**40)])
    tensor = TensorProto(dtype=DT_FLOAT, float_val=[1.0, 2.0], tensor_shape=shape)
    plugin = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"))
    value = Summary.Value(tag="x", metadata=plugin, tensor=tensor)
    events = [Event(step=1, summary=Summary(value=[value])), Event(step=2, summary=scalar_pb("y", 1.0))]
    write_events(tmp_path / "odd" / "events.out.tfevents.1", events)
    (outcome,) = imported(tmp_path / "odd")
    assert points(only_run()) == {"y": [(2, 1.0)]}
    assert any("tensors (1)" in problem for problem in outcome.problems)
