"""A run as a folder of TensorBoard: scalars, texts, images, audio, histograms and hyperparameters."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from darkit.errors import ConfigError, MediaError
from darkit.integrations.exporters.tables import refuse_checkpoint, valid_text
from darkit.runs import Run
from darkit.runs.media import Medium, read_media, read_medium
from darkit.runs.safe import finite_number

_CLOCK = ("step", "time")
_AUDIO = {"wav": "audio/wav", "mp3": "audio/mpeg", "ogg": "audio/ogg", "flac": "audio/flac"}
_HPARAMS = "_hparams_/session_start_info"
_MOST_ROWS = 1_000  # of a table, as text


def export_tensorboard(run: Run, wanted: str | None, output: Path) -> str:
    """Write the log and the media as one event file. TensorBoard's scalars have 32 bits.

    Raises:
        ConfigError: The run has neither rows nor media, or a checkpoint was named.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    refuse_checkpoint(run, wanted, "tensorboard")
    log, media = run.log(), read_media(run.path)
    if not log.height and not media:
        raise ConfigError(f"The run {run.name!r} has not logged anything yet.")
    output.mkdir()
    began = run.created
    left_out: Counter[str] = Counter()
    with (output / f"events.out.tfevents.{int(began)}.darkit").open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=began, file_version="brain.Event:2").SerializeToString())
        config = _hparams(run.config)
        if config is not None:
            writer.write(Event(wall_time=began, summary=config).SerializeToString())
        for row in log.iter_rows(named=True):
            values = [value for name, cell in row.items() for value in _cell(name, cell)]
            step, time = row.get("step"), finite_number(row.get("time"))
            summary = _summary(values)
            event = Event(wall_time=began if time is None else time, step=_whole(step), summary=summary)
            writer.write(event.SerializeToString())
        for medium in media:
            try:
                value = _medium(medium, read_medium(run.path, medium))
            except (MediaError, ValueError, TypeError, KeyError, OverflowError, RecursionError):  # a run is untrusted
                left_out[f"unreadable {medium.kind}"] += 1
                continue
            if value is None:
                left_out[f"{medium.kind} (.{medium.file.rpartition('.')[2]})"] += 1
                continue
            event = Event(wall_time=medium.time, step=medium.step, summary=_summary([value]))
            writer.write(event.SerializeToString())
        writer.flush()
    said = ", ".join(f"{count} {kind}" for kind, count in left_out.items())
    count = len(media) - left_out.total()
    return f"{log.height:,} rows and {count:,} media of {run.name}{f' (not {said})' if said else ''}"


def _summary(values: list[Any]) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary

    return Summary(value=values)


def _cell(name: str, cell: Any) -> Iterator[Any]:
    """Yield the value of one cell: numbers as scalars, texts as texts."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    if name in _CLOCK or cell is None:
        return
    if isinstance(cell, str):
        yield _text(name, cell)
    else:
        yield Summary.Value(tag=name, simple_value=float(cell))


def _text(tag: str, text: str) -> Any:
    from tensorboard.compat.proto.summary_pb2 import SummaryMetadata

    metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
    return _tensor(tag, [text.encode("utf-8", "backslashreplace")], metadata)


def _tensor(tag: str, strings: list[bytes], metadata: Any) -> Any:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
    from tensorboard.compat.proto.types_pb2 import DT_STRING

    shape = TensorShapeProto(dim=[TensorShapeProto.Dim(size=len(strings))])
    tensor = TensorProto(dtype=DT_STRING, string_val=strings, tensor_shape=shape)
    return Summary.Value(tag=tag, metadata=metadata, tensor=tensor)


def _medium(medium: Medium, data: bytes) -> Any:
    """Return a medium as a value, or None if TensorBoard has no such kind. Raises `ValueError` for other content."""
    from tensorboard.compat.proto.summary_pb2 import HistogramProto, Summary

    ending = medium.file.rpartition(".")[2]
    if medium.kind == "text":
        return _text(medium.key, data.decode("utf-8", "replace"))
    if medium.kind == "image" or (medium.kind == "figure" and ending == "png"):
        width, height = struct.unpack(">II", data[16:24]) if ending == "png" and len(data) >= 24 else (0, 0)
        image = Summary.Image(encoded_image_string=data, colorspace=3, width=width, height=height)
        return Summary.Value(tag=medium.key, image=image)
    if medium.kind == "audio":
        audio = Summary.Audio(encoded_audio_string=data, content_type=_AUDIO[ending])
        return Summary.Value(tag=medium.key, audio=audio)
    if medium.kind == "histogram":
        content = json.loads(data)
        edges, counts = content["edges"], content["counts"]
        if len(edges) != len(counts) + 1:
            raise ValueError("The edges do not fit the counts.")
        histogram = HistogramProto(min=edges[0], max=edges[-1], num=sum(counts), bucket_limit=edges[1:], bucket=counts)
        return Summary.Value(tag=medium.key, histo=histogram)
    if medium.kind == "table":
        return _text(medium.key, _markdown(json.loads(data)))
    return None


def _markdown(table: Mapping[str, Any]) -> str:
    columns, rows = table["columns"], table["rows"][:_MOST_ROWS]
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(_in_cell(cell) for cell in line)} |" for line in lines)


def _in_cell(cell: Any) -> str:
    return str("" if cell is None else cell).replace("|", "\\|").replace("\n", " ")


def _hparams(config: Mapping[str, Any]) -> Any:
    """Return the config as the hyperparameters of a session; None without one."""
    from google.protobuf.struct_pb2 import Value
    from tensorboard.compat.proto.summary_pb2 import SummaryMetadata
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionStartInfo

    if not config:
        return None
    values = {}
    for name, value in config.items():
        key, number = valid_text(name), finite_number(value)
        if isinstance(value, bool):
            values[key] = Value(bool_value=value)
        elif number is not None:
            values[key] = Value(number_value=number)
        else:
            values[key] = Value(string_value=valid_text(value) if isinstance(value, str) else json.dumps(value))
    content = HParamsPluginData(session_start_info=SessionStartInfo(hparams=values)).SerializeToString()
    data = SummaryMetadata.PluginData(plugin_name="hparams", content=content)
    metadata = SummaryMetadata(plugin_data=data)
    return _summary([_tensor(_HPARAMS, [], metadata)])


def _whole(step: Any) -> int:
    number = finite_number(step)
    return int(number) if number is not None and abs(number) < 2**53 else 0
