"""`Predicter`: a trained model, loaded by its run's name."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self
from weakref import WeakKeyDictionary

import torch
from torch import nn

from darkit.data.text.pretrained import run_tokenizer
from darkit.engine.checkpoints.checkpoint import read_run_checkpoint
from darkit.engine.checkpoints.weights import load_weights
from darkit.engine.config import TrainerConfig
from darkit.engine.device import floats_like, move_to_device, resolve_device
from darkit.engine.metrics.undisturbed import kept, undisturbed
from darkit.engine.steps.loss import call_model
from darkit.errors import ConfigError, ModelError
from darkit.prediction.classification import label_texts
from darkit.prediction.rebuild import build_model
from darkit.prediction.tasks import label_names, task_of
from darkit.prediction.text.generate import stream_texts
from darkit.prediction.text.masked import fill_masks
from darkit.prediction.text.seq2seq import stream_target
from darkit.runs import Run, base, files, load
from darkit.runs.checkpoints import COMPLETE, Checkpoint, find_checkpoint
from darkit.runs.names import run_path, split_reference
from darkit.runs.tasks import CLASSIFICATION, MASKED, REGRESSION, SEQ2SEQ

_EXTERNAL = "external_config.json"  # of a run of DarwinKit's, which has no run.json
_LOADED: WeakKeyDictionary[nn.Module, Checkpoint] = WeakKeyDictionary()
"""The checkpoint of each loaded model; `Predicter.get_model` may be overridden and returns only the model."""


class Predicter:
    """Prediction with the model of a run.

    A name may also be ``NAME:CHECKPOINT``. Every class method may be overridden; `register` sets the subclass that
    `from_pretrained` builds for models of a class.

    Args:
        name: The run's name.
        model: The model with its weights.
        device: Its device.

    Attributes:
        checkpoint: The checkpoint that `from_pretrained` loaded; None if a subclass loaded the weights itself.
    """

    checkpoint: Checkpoint | None = None
    _registry: ClassVar[dict[str, type[Predicter]]] = {}
    _builds_registered: ClassVar[bool] = True  # of a class itself, not of its subclasses

    def __init__(self, name: str, model: nn.Module, device: str = "cpu") -> None:
        self.name = name
        self.device = device
        self.model = model.to(device).eval()

    @classmethod
    def register(cls, name: str, predicter: type[Predicter]) -> None:
        """Make `from_pretrained` build ``predicter`` for models whose class has this name.

        Raises:
            ModelError: It is not a subclass of `Predicter`.
        """
        if not (isinstance(predicter, type) and issubclass(predicter, Predicter)):
            raise ModelError(f"Only subclasses of Predicter can be registered for {name!r}, not {predicter!r}.")
        Predicter._registry[name] = predicter

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        device: str | torch.device | None = None,
        checkpoint: str | int | None = None,
        *,
        model: nn.Module | None = None,
    ) -> Self:
        """Load a run's predicter.

        Args:
            name: The run's name.
            device: The device, such as ``cpu`` or ``cuda:1``; None takes the accelerator if available.
            checkpoint: ``iter-400-ckpt``, ``400``, or None for the latest undamaged one.
            model: The model itself, if it cannot be built from the run's record; its weights are loaded.

        Raises:
            RunNotFoundError: The run does not exist.
            CheckpointNotFoundError: The checkpoint does not exist.
            CheckpointMismatchError: The weights are those of another model.
            ModelError: The model's class cannot be found or built.
        """
        reference, wanted = cls._refer(name, checkpoint)
        chosen: type[Any] = cls
        if "_builds_registered" in vars(cls):
            found = Predicter._registry.get(str(cls.get_external_config_json(reference).get("model_class")), cls)
            chosen = found if issubclass(found, cls) else cls
        if model is None:
            model = chosen.get_model(reference, wanted)
        else:
            cls._load(reference, wanted, model)
        predicter = chosen._make(reference, model, _resolve(device))
        predicter.checkpoint = _LOADED.get(model)
        return predicter  # type: ignore[no-any-return]

    @classmethod
    def get_root(cls) -> Path:
        """Return the root of the runs; a subclass may override it."""
        return base()

    @classmethod
    def get_save_directory(cls, name: str) -> Path:
        """Return the run directory, whether it exists or not."""
        return run_path(Path(cls.get_root()), cls._refer(name, None)[0])

    @classmethod
    def get_external_config_json(cls, name: str) -> dict[str, Any]:
        """Return the name of the model's class, its curves, and what the run forked, by DarwinKit's names."""
        run = cls._run(name)
        own = {"model_class": run.model_class.rpartition(".")[2], "series": run.series, "fork": run.fork or None}
        return own if run.info else files.read_json(run.path / _EXTERNAL)

    @classmethod
    def get_checkpoint(cls, name: str, checkpoint: str | int | None = None) -> Path:
        """Return the file of a run's checkpoint; None means the latest undamaged one."""
        reference, wanted = cls._refer(name, checkpoint)
        return find_checkpoint(cls._run(reference).path, wanted).path

    @classmethod
    def get_model_config_json(cls, name: str) -> dict[str, Any]:
        """Return the config that the run's model is rebuilt from: ``config.json``, unless its loop has that."""
        return cls._run(name).model_config

    @classmethod
    def get_fork_directory(cls, fork: Any) -> Path | None:
        """Return the folder of the scripts of a fork of DarwinKit's, by its name; None of anything else."""
        return Path(cls.get_root()) / "fork" / fork if fork and isinstance(fork, str) else None

    @classmethod
    def inject_script(cls, model: nn.Module, name: str) -> nn.Module:
        """Return the model, which a ``from_pretrained`` written for DarwinKit has changed by a fork's scripts here.

        Raises:
            ConfigError: The run is such a fork: its scripts are not run.
        """
        scripts = cls.get_fork_directory(cls.get_external_config_json(name).get("fork"))
        if scripts is not None:
            raise ConfigError(
                f"The run {name!r} is a fork whose model is changed by the scripts in {str(scripts)!r}, which are "
                "not run: build the changed model in get_model, and override inject_script."
            )
        return model

    @classmethod
    def get_trainer_config_json(cls, name: str) -> dict[str, Any]:
        """Return the run's ``trainer_config.json``."""
        return cls._run(name).trainer_config

    @classmethod
    def get_tokenizer(cls, name: str) -> Any:
        """Return the run's tokenizer, or None.

        Returns:
            A transformers tokenizer if the run was given one, else a `tokenizers.Tokenizer`.

        Raises:
            ConfigError: It cannot be loaded without code of its own, or is not a tokenizer.
        """
        return run_tokenizer(cls._run(name).path)

    @classmethod
    def get_model(cls, name: str, checkpoint: str | int | None = None) -> nn.Module:
        """Build the run's model and load its weights strictly."""
        reference, wanted = cls._refer(name, checkpoint)
        model = build_model(cls._run(reference))
        cls._load(reference, wanted, model, own_types=False)
        return model

    @cached_property
    def tokenizer(self) -> Any:
        """The run's tokenizer, or None."""
        return self.get_tokenizer(self.name)

    @cached_property
    def task(self) -> str:
        """The model's task: ``causal``, ``masked``, ``classification``, ``regression`` or ``seq2seq``."""
        return task_of(self._run(self.name), self.model, self.tokenizer)

    @cached_property
    def label_names(self) -> list[str]:
        """The label names in the order of their numbers; empty if unknown."""
        return label_names(self._run(self.name), self.model)

    def predict(self, input: Any, **settings: Any) -> Any:
        """Predict in evaluation mode, without gradients.

        Args:
            input: A text or a list of texts, if the run has a tokenizer; else the model's input: a tensor, or a tuple
                or dict of tensors.
            **settings: For text generation those of `darkit.prediction.text.generate.stream_text`; for a masked model
                ``top``.

        Returns:
            For a text (for several, a list of): an iterator of pieces of the generated text; of a masked model the
            candidates for each ``[MASK]``; of a classification a `Label`; of a regression a number. For anything else
            the model's output.

        Raises:
            ConfigError: Text for a model without a tokenizer.
        """
        self.model.eval()
        several = isinstance(input, list) and bool(input) and all(isinstance(item, str) for item in input)
        if not several and not isinstance(input, str):
            with torch.inference_mode(), undisturbed(self.model):
                return call_model(self.model, floats_like(self.model, move_to_device(input, self.device)))
        if self.tokenizer is None:
            raise ConfigError(f"The run {self.name!r} has no tokenizer, so it cannot take text: give it a tensor.")
        found = self._predict_texts(input if several else [input], settings)
        return found if several else found[0]

    def _predict(self, ctx: Any) -> Any:
        """Return the likeliest token (1) after a text's tokens (1, time); a subclass may override it.

        `darkit.lm.main.Predicter` generates text with it.
        """
        outputs = self.model(ctx)
        logits = getattr(outputs, "logits", outputs)
        return logits.reshape(-1, logits.shape[-1])[-1:].argmax(1)

    def _predict_texts(self, texts: list[str], settings: dict[str, Any]) -> list[Any]:
        with undisturbed(self.model):
            if self.task == MASKED:
                return [fill_masks(self.model, self.tokenizer, text, **settings) for text in texts]
            if self.task in (CLASSIFICATION, REGRESSION):
                return list(label_texts(self.model, self.tokenizer, texts, self.task, self.label_names, **settings))
        if self.task == SEQ2SEQ:
            streams = [stream_target(self.model, self.tokenizer, text, **settings) for text in texts]
        else:
            streams = stream_texts(self.model, self.tokenizer, texts, **settings)
        return [kept(self.model, stream) for stream in streams]

    @classmethod
    def _make(cls, name: str, model: nn.Module, device: str) -> Self:
        """Call the constructor."""
        return cls(name, model, device)

    @classmethod
    def _run(cls, name: str) -> Run:
        return load(name, root=cls.get_root())

    @classmethod
    def _refer(cls, name: str, checkpoint: str | int | None) -> tuple[str, str | int | None]:
        reference, found = split_reference(name)
        wanted = checkpoint if checkpoint is not None else found
        return reference, None if wanted == COMPLETE else wanted

    @classmethod
    def _load(cls, name: str, checkpoint: str | int | None, model: nn.Module, *, own_types: bool = True) -> None:
        found, content = read_run_checkpoint(cls._run(name).path, checkpoint)
        load_weights(model, content, own_types=own_types)
        _LOADED[model] = found


def _resolve(device: str | torch.device | None) -> str:
    """Return the device to use, with its index if it is of the requested kind."""
    kind, _, number = str(device or "auto").partition(":")
    found = resolve_device(TrainerConfig(device=kind))
    return f"{found}:{number}" if number and found == kind else found
