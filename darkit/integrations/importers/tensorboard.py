"""TensorBoard's event files: scalars, texts, images, audio, histograms and hyperparameters of one folder.

As in TensorBoard, every folder with event files is a run, and its files are read in the order of their names. Where a
training was restarted (`SessionLog.START`), what was logged from that step on is dropped.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from darkit.errors import SourceError
from darkit.integrations.importers.events import TornError, read_event, read_records
from darkit.integrations.importers.imported import Folder, Imported, ImportedMedium, Source
from darkit.integrations.importers.reading import digest_files, opened
from darkit.integrations.importers.rows import Rows, column_name
from darkit.runs.media_content import ending_of, histogram_json

_MARK = "tfevents"
_HPARAMS = "_hparams_/"
_NO_END = "TensorBoard's event files do not say how a run ended."
_MOST_MEDIA = 1_000_000  # a run keeps fewer
_FAILED = 2  # hparams' STATUS_FAILURE
_CODES = {1: "f", 2: "d", 3: "i", 4: "B", 5: "h", 6: "b", 9: "q"}  # types of tensors -> their form in memory
_FIELDS = {1: "float_val", 2: "double_val", 3: "int_val", 4: "int_val", 5: "int_val", 6: "int_val", 9: "int64_val"}
_MEDIA = {"text", "images", "audio", "histograms"}  # plugins
_OLD = {"image": "images", "audio": "audio", "histo": "histograms"}  # fields of events without a plugin


@dataclass(frozen=True)
class TensorBoardSource(Source):
    """A folder with event files.

    Attributes:
        files: Their names.
    """

    files: tuple[str, ...]

    @property
    def kind(self) -> str:
        return "tensorboard"

    def digest(self) -> tuple[str, int]:
        return digest_files(self.path, self.files)

    def read(self) -> Imported:
        return read_event_files([self.path / name for name in self.files])


def event_files(folder: Folder) -> tuple[str, ...]:
    """Return the names of a folder's event files, in their order."""
    return tuple(sorted(name for name in folder.files if _MARK in name))


def find(folder: Folder) -> list[Source]:
    """Return the run in a folder, if it has event files."""
    names = event_files(folder)
    return [TensorBoardSource(folder.path, folder.name(), names)] if names else []


def read_event_files(paths: Sequence[Path]) -> Imported:
    """Read event files as one run. Raises `SourceError` if nothing of them can be read."""
    found = _Events()
    problems = []
    for number, path in enumerate(paths):
        try:
            for position, content in read_records(path):
                found.add(_parse(content, position), number, position)
        except (TornError, SourceError) as error:
            problems.append(f"{path.name}: {error}.".replace("..", "."))
    if problems and not found.any:
        raise SourceError(f"Nothing could be read. {problems[0]}")
    times = found.rows.times
    return Imported(
        rows=found.rows,
        config=found.config,
        media=lambda: found.media(paths),
        state="crashed" if found.failed else "unknown",
        reason="Its hyperparameters' end record says that it failed." if found.failed else _NO_END,
        started=found.first_time,
        ended=times[1] if times else found.first_time,
        problems=[*problems, *found.problems()],
    )


def _parse(content: bytes, position: int) -> Any:
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event

    try:
        return Event.FromString(content)
    except DecodeError as error:
        raise TornError(position, "is not an event") from error


class _Place(NamedTuple):
    """Where a medium is."""

    step: int
    tag: str
    plugin: str
    file: int
    position: int
    value: int


class _Events:
    """What has been read so far."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.config: dict[str, Any] = {}
        self.failed = self.any = False
        self.first_time = 0.0
        self._places: list[_Place] = []
        self._plugins: dict[str, str] = {}  # only the first value of a tag names its plugin
        self._left_out: Counter[str] = Counter()
        self._version = 0.0
        self._last = -1

    def add(self, event: Any, file: int, position: int) -> None:
        """Add the values of an event, and drop earlier ones if it marks a restart."""
        self.any = True
        self.first_time = self.first_time or event.wall_time
        if event.HasField("file_version"):
            self._version = _version(event.file_version)
        self._drop_orphans(event)
        for kind in ("graph_def", "meta_graph_def", "tagged_run_metadata"):
            self._left_out[kind] += event.HasField(kind)
        for index, value in enumerate(event.summary.value):
            self._add_value(value, event, _Place(event.step, value.tag or value.node_name, "", file, position, index))

    def _drop_orphans(self, event: Any) -> None:
        """Drop what a restarted training logs again, by TensorBoard's rules."""
        if self._version >= 2:
            if event.HasField("session_log") and event.session_log.status == event.session_log.START:
                self.rows.drop_from(event.step)
                self._places = [place for place in self._places if place.step < event.step]
        elif event.step < self._last and event.HasField("summary"):
            tags = {value.tag for value in event.summary.value}
            self.rows.drop_from(event.step, tags)
            self._places = [place for place in self._places if place.step < event.step or place.tag not in tags]
        else:
            self._last = event.step

    def _add_value(self, value: Any, event: Any, place: _Place) -> None:
        kind = value.WhichOneof("value")
        if value.HasField("metadata") and value.metadata.plugin_data.plugin_name:
            self._plugins.setdefault(place.tag, value.metadata.plugin_data.plugin_name)
        if place.tag.startswith(_HPARAMS):
            self._add_hparams(value.metadata.plugin_data.content)
            return
        plugin = self._plugins.get(place.tag, "")
        if kind == "simple_value":
            self.rows.add(event.step, {place.tag: value.simple_value}, event.wall_time)
        elif kind == "tensor" and plugin in ("scalars", ""):
            numbers = _numbers(value.tensor, most=1)
            if len(numbers) == 1:
                self.rows.add(event.step, {place.tag: numbers[0]}, event.wall_time)
            else:
                self._left_out["tensors"] += 1
        elif kind in _OLD or (kind == "tensor" and plugin in _MEDIA):
            if len(self._places) < _MOST_MEDIA and event.step >= 0:
                self._places.append(place._replace(plugin=_OLD.get(kind, plugin)))
            else:
                self._left_out["media of negative steps" if event.step < 0 else "media"] += 1
        elif kind is not None:
            self._left_out[plugin or kind] += 1

    def _add_hparams(self, content: bytes) -> None:
        from google.protobuf.message import DecodeError
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        try:
            data = HParamsPluginData.FromString(content)
        except DecodeError:
            self._left_out["damaged hyperparameters"] += 1
            return
        for name, value in data.session_start_info.hparams.items():
            field = value.WhichOneof("kind")
            if field in ("number_value", "string_value", "bool_value"):
                self.config[name] = getattr(value, field)
        self.failed = self.failed or data.session_end_info.status == _FAILED

    def media(self, paths: Sequence[Path]) -> Iterator[ImportedMedium]:
        """Read the media, in the order of their logging."""
        for number, path in enumerate(paths):
            places = [place for place in self._places if place.file == number]
            if not places:
                continue
            with opened(path) as file:
                for place in places:
                    event = read_event(file, place.position)
                    yield from _media_of(event.summary.value[place.value], place, event.wall_time)

    def problems(self) -> list[str]:
        """Return a sentence for each reason why something was left out."""
        kinds = ", ".join(f"{kind} ({count})" for kind, count in sorted(self._left_out.items()) if count)
        said = [f"A run keeps no values of these kinds; they were left out: {kinds}."] if kinds else []
        return [*self.rows.problems(), *said]


def _media_of(value: Any, place: _Place, time: float) -> Iterator[ImportedMedium]:
    """Return the media of one value; content that is none is left out."""
    key = column_name(place.tag)
    tensor = value.tensor
    if place.plugin == "text":
        text = "\n".join(part.decode("utf-8", "replace") for part in tensor.string_val)
        yield ImportedMedium("text", key, place.step, text.encode(), "txt", time)
    elif place.plugin == "histograms":
        with_edges = _old_histogram(value.histo) if value.HasField("histo") else _histogram(_numbers(tensor, 300_000))
        try:
            yield ImportedMedium("histogram", key, place.step, histogram_json(*with_edges), "json", time)
        except ValueError:
            return
    elif place.plugin == "images":
        old = value.HasField("image")
        files = [value.image.encoded_image_string] if old else list(tensor.string_val)[2:]  # width and height first
        yield from _files("image", key, place.step, files, time)
    else:
        files = [value.audio.encoded_audio_string] if value.HasField("audio") else list(tensor.string_val)[::2]
        yield from _files("audio", key, place.step, files, time)  # labels stand between them


def _files(kind: str, key: str, step: int, files: Sequence[bytes], time: float) -> Iterator[ImportedMedium]:
    for index, data in enumerate(files):
        name = key if len(files) == 1 else f"{key[:190]}/{index}"
        yield ImportedMedium(kind, name, step, data, ending_of(data), time)


def _old_histogram(histo: Any) -> tuple[list[float], list[float]]:
    """Return edges and counts without the empty bins at both ends, whose outer edges are the largest floats."""
    counts, limits = list(histo.bucket), list(histo.bucket_limit)
    used = [index for index, count in enumerate(counts) if count > 0]
    if not used or len(limits) < len(counts):
        return [], []
    first, last = used[0], used[-1]
    return [histo.min, *limits[first:last], histo.max], counts[first : last + 1]


def _histogram(numbers: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return edges and counts of rows of left edge, right edge and count."""
    if not numbers or len(numbers) % 3:
        return [], []
    return [*numbers[::3], numbers[-2]], list(numbers[2::3])


def _numbers(tensor: Any, most: int) -> Sequence[float]:
    """Return the numbers of a tensor; nothing if there are more, or it holds something else."""
    code = _CODES.get(tensor.dtype)
    if code is None:
        return []
    if tensor.tensor_content:
        size = array(code).itemsize
        if len(tensor.tensor_content) % size or len(tensor.tensor_content) > most * size:
            return []
        return array(code, tensor.tensor_content).tolist()
    values: Iterable[float] = getattr(tensor, _FIELDS[tensor.dtype])
    found = list(values)
    return found if len(found) <= most else []


def _version(text: str) -> float:
    """Return the number in ``brain.Event:2``."""
    try:
        return float(text.rpartition(":")[2])
    except ValueError:
        return 0.0
