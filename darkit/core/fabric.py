"""`FabricTrainer`: a hand-written loop with Lightning's Fabric."""

from __future__ import annotations

from typing import Any

from lightning.fabric import Fabric
from lightning.fabric.strategies.ddp import DDPStrategy
from torch import nn

from darkit.core.arguments import tokenizer_and_config
from darkit.core.trainer import Trainer
from darkit.engine.config import AUTO, TrainerConfig
from darkit.engine.device import resolve_device


class FabricTrainer(Trainer):
    """A `Trainer` whose subclass writes ``train`` with ``self.fabric``.

    Its device, ``device_num``, ``num_nodes``, ``strategy`` and ``precision`` are those of the config. Whether the loop
    calls ``self.fabric.launch()`` and which objects it sets up is its own affair; checkpoints have the bare weights.

    Args:
        model: As of `Trainer`.
        *args: As of `Trainer`.
        process_group_backend: How several processes communicate: ``nccl``, ``gloo``; None takes the device's own.
        **kwargs: As of `Trainer`.

    Attributes:
        fabric: The `lightning.fabric.Fabric`.
    """

    _builds_registered = True

    def __init__(
        self,
        model: nn.Module,
        *args: Any,
        config: TrainerConfig | None = None,
        tokenizer: Any = None,
        process_group_backend: str | None = None,
        **kwargs: Any,
    ) -> None:
        tokenizer, config = tokenizer_and_config(args, tokenizer, config)
        strategy: Any = config.strategy
        if strategy == AUTO and config.process_count() > 1:
            strategy = DDPStrategy(process_group_backend=process_group_backend)
        self.fabric = Fabric(
            accelerator=resolve_device(config),
            devices=config.device_num,
            num_nodes=config.num_nodes,
            strategy=strategy,
            precision=config.precision,  # type: ignore[arg-type]
        )
        super().__init__(model, config=config, tokenizer=tokenizer, **kwargs)
