"""Models of which every process holds a part: ``strategy="fsdp"``, which is torch's ``fully_shard`` (FSDP2).

The rule for what is gathered at a time: each child of a `ModuleList` or `Sequential` that has parameters is one block,
outermost lists first; everything else is one more. A block that shares a parameter with the rest belongs to the rest.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from lightning import Trainer
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, SingleDeviceStrategy, Strategy
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.optim import Optimizer

from darkit.engine.config import TrainerConfig
from darkit.engine.metrics.merging import of_first
from darkit.engine.steps.adapter import Adapter
from darkit.engine.steps.optim import optimizer_class
from darkit.errors import BatchError, ConfigError, ModelError, listing

SHARDED = "fsdp"
_PRECISIONS = ("32-true", "bf16-mixed", "bf16-true", "16-true")
_ELEMENTWISE = ("adamw", "adam", "sgd", "rmsprop", "adagrad", "adadelta", "adamax", "nadam", "radam", "asgd", "rprop")
_LISTS = (nn.ModuleList, nn.Sequential)
_ADVICE = "Use strategy='ddp', whose processes have the whole model"


def refuse_strategy(config: TrainerConfig, processes: int, optimizer: Any = None) -> None:
    """Refuse strategies that split a model in other ways, and settings that need the whole model in each process.

    Args:
        config: The settings.
        processes: The number of processes of the training.
        optimizer: The user's optimizer or a callable of the parameters, or None.

    Raises:
        ConfigError: One of them is given.
    """
    name = config.strategy
    if name != SHARDED:
        if name.startswith(("fsdp", "deepspeed", "xla", "model_parallel")):
            raise ConfigError(
                f"strategy={name!r} is not supported: its processes each hold a part of the model in a form that "
                "darkit does not save. Use strategy='fsdp', or 'ddp'."
            )
        return
    if processes == 1:
        raise ConfigError(
            "strategy='fsdp' splits a model over several processes, but this training has one: leave strategy out. "
            "Checkpoints in parts are read in either case."
        )
    whole = [key for key in ("ema_decay", "compile") if getattr(config, key)]
    if whole:
        raise ConfigError(f"{whole[0]} is not possible with strategy='fsdp'. {_ADVICE}, or leave {whole[0]} out.")
    if config.keep_optimizer != "all":
        raise ConfigError(
            f"keep_optimizer={config.keep_optimizer!r} is not possible with strategy='fsdp', whose checkpoints are "
            "folders of parts. Leave it out, or use keep_last."
        )
    if config.precision not in _PRECISIONS:
        raise ConfigError(
            f"strategy='fsdp' needs a precision of {listing(list(_PRECISIONS))}, not {config.precision!r}."
        )
    if config.device == "mps":
        raise ConfigError("strategy='fsdp' needs device='cuda' or 'cpu', not 'mps'.")
    if isinstance(optimizer, Optimizer):
        raise ConfigError(
            "strategy='fsdp' replaces the model's parameters by parts, which this optimizer would not step: give "
            f"optimizer= as a callable of the parameters, such as torch.optim.{type(optimizer).__name__}."
        )
    if optimizer is None:
        refuse_optimizer(optimizer_class(config.optimizer))


def refuse_optimizer(cls: type[Optimizer]) -> None:
    """Refuse an optimizer that does more with a weight than with each of its elements. Raises `ConfigError`."""
    known = [optimizer_class(name) for name in _ELEMENTWISE]
    if not issubclass(cls, tuple(known)):
        raise ConfigError(
            f"strategy='fsdp' steps each part of a weight alone, for which {cls.__name__} is not known to be right. "
            f"Available: {listing([one.__name__ for one in known])}. {_ADVICE}."
        )


def make_strategy(config: TrainerConfig, processes: int) -> str | Strategy:
    """Return Lightning's strategy for the setting, for a training in a number of processes."""
    if config.strategy != SHARDED:
        return config.strategy
    return ModelParallelStrategy(data_parallel_size=processes, tensor_parallel_size=1)


def is_sharded(trainer: Trainer) -> bool:
    """Return whether the processes of a trainer each hold a part of the model."""
    return isinstance(trainer.strategy, ModelParallelStrategy)


def is_known(strategy: Strategy) -> bool:
    """Return whether checkpoints hold everything of a training under a strategy."""
    return isinstance(strategy, SingleDeviceStrategy | DDPStrategy | ModelParallelStrategy)


class Whole(nn.Module):
    """A module whose parameters are there while something is computed with it, in whichever way.

    It is the root of the sharding: the user's module keeps its class, and may be called by any of its methods.

    Args:
        module: The user's module.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, compute: Callable[..., Any], *arguments: Any, **settings: Any) -> Any:
        """Compute something with all parameters that belong to no block, and the first process's buffers."""
        _share_buffers(self.module)
        return compute(*arguments, **settings)


class ShardedAdapter(Adapter):
    """An `Adapter` of which every process holds a part."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.whole: Whole | None = None

    def configure_model(self) -> None:
        """Split the module over the processes, before the optimizer is made."""
        if self.whole is not None:
            return
        mesh: Any = self.device_mesh
        self.whole = shard(self.module, mesh["data_parallel"], self.config.precision)
        self.compute.within(functools.partial(self._computed, self.whole))

    def configure_optimizers(self) -> Optimizer:
        made = super().configure_optimizers()
        refuse_optimizer(type(made))
        return made

    def _parameters_of_a_pass(self) -> Iterator[nn.Parameter]:
        """Return the whole parameters that exist while something is computed, which torch keeps for itself."""
        for part in () if self.whole is None else self.whole.modules():
            if isinstance(part, FSDPModule):
                for group in part._get_fsdp_state()._fsdp_param_groups:
                    yield from (one.unsharded_param for one in group.fsdp_params if hasattr(one, "_unsharded_param"))

    def _computed(self, whole: Whole, compute: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return whole(compute, *arguments)
        except BatchError as error:
            if "DTensor" in str(error):
                raise ModelError(
                    f"{type(self.module).__name__} uses the parameters of a block without calling the block, which "
                    f"strategy='fsdp' cannot gather then: call the block. {_ADVICE}. ({error})"
                ) from error
            raise


def shard(module: nn.Module, mesh: Any, precision: str = "32-true") -> Whole:
    """Split a module's parameters over the processes of a mesh, in place; all processes begin with the first one's.

    Args:
        module: The module.
        mesh: A device mesh of one dimension.
        precision: As in the settings; ``*-true`` casts the parameters.

    Returns:
        The root, with which everything must be computed.

    Raises:
        ModelError: The module has parameters that cannot be split.
    """
    if precision in ("bf16-true", "16-true"):
        module.to(torch.bfloat16 if precision == "bf16-true" else torch.float16)
    whole = Whole(module)
    blocks = list(find_blocks(module))
    _refuse_parameters(module)
    _share_parameters(module, mesh.device_type)
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True)
    fully_shard(whole, mesh=mesh, reshard_after_forward=True)
    root: Any = whole
    root.set_reduce_scatter_unused_params(True)  # processes that do not use the same ones must still add the same
    return whole


def find_blocks(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of a module that are gathered one at a time."""
    owners: dict[nn.Parameter, int] = {}
    for part in module.modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                owners[parameter] = owners.get(parameter, 0) + 1

    def is_alone(block: nn.Module) -> bool:
        inside: dict[nn.Parameter, int] = {}
        for part in block.modules():
            for parameter in part._parameters.values():
                if parameter is not None:
                    inside[parameter] = inside.get(parameter, 0) + 1
        return bool(inside) and all(owners[parameter] == count for parameter, count in inside.items())

    def walk(part: nn.Module) -> Iterator[nn.Module]:
        for child in part.children():
            if isinstance(part, _LISTS) and not isinstance(child, _LISTS):
                if is_alone(child):
                    yield child
            else:
                yield from walk(child)

    yield from walk(module)


def _refuse_parameters(module: nn.Module) -> None:
    """Refuse parameters that `fully_shard` does not split."""
    name = type(module).__name__
    for key, parameter in module.named_parameters():
        if not parameter.ndim:
            raise ModelError(
                f"The parameter {key!r} of {name} is a single number, which strategy='fsdp' cannot split: give it the "
                f"shape (1,). {_ADVICE}."
            )
        if parameter.is_complex():
            raise ModelError(
                f"The parameter {key!r} of {name} is complex, which strategy='fsdp' cannot split. {_ADVICE}."
            )
    kinds = {parameter.dtype for parameter in module.parameters() if parameter.requires_grad}
    if len(kinds) > 1:
        raise ModelError(
            f"{name} has parameters of {listing(sorted(str(kind).removeprefix('torch.') for kind in kinds))}, but "
            "strategy='fsdp' needs one dtype for all that are trained."
        )


@torch.no_grad()
def _share_parameters(module: nn.Module, device: str) -> None:
    """Give all processes the parameters and buffers of the first one, as data-parallel training does."""
    for value in (*module.parameters(), *module.buffers()):
        value.copy_(of_first(value.detach().to(device)))


@torch.no_grad()
def _share_buffers(module: nn.Module) -> None:
    """Give all processes the buffers of the first one, which are those that a checkpoint has."""
    kinds: dict[torch.dtype, list[Tensor]] = {}
    for buffer in module.buffers():
        kinds.setdefault(buffer.dtype, []).append(buffer)
    for buffers in kinds.values():
        flat = of_first(torch.cat([buffer.detach().reshape(-1) for buffer in buffers]))
        parts = torch.split(flat, [buffer.numel() for buffer in buffers])
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
