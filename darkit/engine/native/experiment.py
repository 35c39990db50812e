"""What ``self.logger.experiment`` is in a training of Lightning's own loop: a TensorBoard writer's calls, for a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy

from darkit.engine.log.encoding import to_array
from darkit.engine.log.media import Audio, Histogram, Image, Text
from darkit.errors import MediaError
from darkit.runs import Run

logger = logging.getLogger(__name__)
Put = Callable[[Mapping[str, Any], int | None], None]
_IN_A_ROW = 8  # images side by side, as in TensorBoard


class Experiment:
    """Records what a module gives to the ``SummaryWriter`` of a TensorBoard logger; other attributes are the run's.

    A value that cannot be recorded is reported once by its name, and the training continues.

    Args:
        run: Returns the run, or None before it exists.
        put: Called with values and media by name, and the step that the module gave.
    """

    def __init__(self, run: Callable[[], Run | None], put: Put) -> None:
        self._run = run
        self._put = put
        self._told: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("add_"):
            return lambda *arguments, **options: self._tell(
                name, f"self.logger.experiment.{name}() is not recorded in the run, which has no such entries."
            )
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._run(), name)

    def add_scalar(self, tag: str, scalar_value: Any, global_step: int | None = None, *arguments: Any) -> None:
        """Record a number."""
        self._put({tag: scalar_value}, global_step)

    def add_scalars(self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: int | None = None) -> None:
        """Record several numbers, as ``main_tag/name``."""
        self._put({f"{main_tag}/{name}": value for name, value in tag_scalar_dict.items()}, global_step)

    def add_image(
        self, tag: str, img_tensor: Any, global_step: int | None = None, walltime: Any = None, dataformats: str = "CHW"
    ) -> None:
        """Record an image; fractions are clipped to the range from 0 to 1."""
        self._record(tag, lambda: Image(_pixels(img_tensor, dataformats)), global_step)

    def add_images(
        self, tag: str, img_tensor: Any, global_step: int | None = None, walltime: Any = None, dataformats: str = "NCHW"
    ) -> None:
        """Record a batch of images as one image."""
        self._record(tag, lambda: Image(_tiled(img_tensor, dataformats)), global_step)

    def add_figure(
        self, tag: str, figure: Any, global_step: int | None = None, close: bool = True, walltime: Any = None
    ) -> None:
        """Record a figure of matplotlib, or several of them, and close them."""
        figures = list(figure) if isinstance(figure, Sequence) else [figure]
        for number, one in enumerate(figures):
            self._record(tag if len(figures) == 1 else f"{tag}/{number}", partial(Image, one), global_step)
        if close:
            import matplotlib.pyplot  # its figures exist already

            for one in figures:
                matplotlib.pyplot.close(one)

    def add_histogram(self, tag: str, values: Any, global_step: int | None = None, *arguments: Any, **_: Any) -> None:
        """Record how often values are how large."""
        self._record(tag, lambda: Histogram(values), global_step)

    def add_text(self, tag: str, text_string: str, global_step: int | None = None, *arguments: Any) -> None:
        """Record a text."""
        self._record(tag, lambda: Text(text_string), global_step)

    def add_audio(
        self, tag: str, snd_tensor: Any, global_step: int | None = None, sample_rate: int = 44100, *arguments: Any
    ) -> None:
        """Record a sound; values are clipped to the range from -1 to 1."""
        self._record(tag, lambda: Audio(to_array(snd_tensor).clip(-1, 1), rate=sample_rate), global_step)

    def flush(self) -> None:
        """Do nothing: rows and media are written by a thread."""

    close = flush

    def _record(self, tag: str, make: Callable[[], Any], step: int | None) -> None:
        try:
            self._put({tag: make()}, step)
        except (MediaError, ValueError, TypeError) as error:
            self._tell(tag, f"{tag!r} is not recorded in the run: {error}")

    def _tell(self, name: str, text: str) -> None:
        if name not in self._told:
            self._told.add(name)
            logger.warning("%s", text)


def _pixels(image: Any, order: str) -> numpy.ndarray[Any, Any]:
    """Return an image as bytes (height, width, channels).

    Args:
        image: Bytes, or fractions.
        order: Its dimensions, such as ``CHW``.
    """
    array = to_array(image)
    if len(order) != array.ndim or not set(order) <= set("NCHW"):
        raise MediaError(f"dataformats={order!r} does not fit an image of the shape {array.shape}")
    array = array.transpose([order.index(name) for name in "NHWC" if name in order])
    if array.dtype != numpy.uint8:
        array = (numpy.nan_to_num(array.astype(numpy.float32)) * 255).clip(0, 255).astype(numpy.uint8)
    return array


def _tiled(images: Any, order: str) -> numpy.ndarray[Any, Any]:
    """Return images as one, in rows."""
    array = _pixels(images, order)
    array = array if array.ndim == 4 else array[..., None]
    count, height, width, channels = array.shape
    columns = min(count, _IN_A_ROW)
    rows = math.ceil(count / columns)
    whole = numpy.zeros((rows * columns, height, width, channels), numpy.uint8)
    whole[:count] = array
    return (
        whole.reshape(rows, columns, height, width, channels)
        .swapaxes(1, 2)
        .reshape(rows * height, columns * width, channels)
    )
