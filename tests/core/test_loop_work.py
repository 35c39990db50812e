"""A step of a hand-written loop, counted where the loop asks for it, as torch counts the same step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import darkit
from darkit.errors import ConfigError
from darkit.runs.graph import read_graph
from darkit.runs.work import WORK, Work, read_work


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)  # type: ignore[no-any-return]


def start() -> darkit.ActiveRun:
    return darkit.start_run(console=False, tensorboard=False)


def work_of(run: Any) -> Work:
    work = read_work(darkit.load(run.name).info)
    assert work is not None
    return work


def oracle(net: Net, size: int) -> int:
    with FlopCounterMode(display=False) as counter:
        net(torch.ones(size, 4)).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("inside", [False, True])
def test_the_first_block_is_counted_as_torch_counts_it(inside: bool) -> None:
    class Multiplying(torch.optim.SGD):
        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            torch.ones(9, 9) @ torch.ones(9, 9)
            return super().step(closure)

    net = Net()
    expected, optimizer = oracle(net, 6), Multiplying(net.parameters(), lr=0.1)
    with start() as run:
        for step in range(1, 4):
            x = torch.ones(6 if step == 1 else 2, 4)
            with run.count_step(net, x, peak_flops=1e12):
                loss = net(x).sum()
                loss.backward()
                if inside:
                    optimizer.step()
            run.log({"loss": loss}, step=step)
    work = work_of(run)
    assert (work.flops, work.samples, work.tokens, work.uncounted) == (expected, 6, None, "")
    assert (work.parameters, work.peak) == (49, 1e12)
    graph = read_graph(run.path)
    assert graph is not None
    assert [(node.name, node.calls) for node in graph.nodes][:3] == [("", 1), ("layers", 1), ("layers.0", 1)]


def test_accumulated_batches_are_one_step_whose_size_the_loop_gives() -> None:
    net = Net()
    with start() as run, run.count_step(net, samples=9, tokens=90):
        for _ in range(3):
            net(torch.ones(3, 4)).sum().backward()
    work = work_of(run)
    assert (work.flops, work.samples, work.tokens) == (3 * oracle(net, 3), 9, 90)
    graph = read_graph(run.path)
    assert graph is not None
    assert graph.nodes[0].calls == 1


def test_without_a_batch_the_samples_are_not_known() -> None:
    net = Net()
    with start() as run, run.count_step(net):
        net(torch.ones(3, 4)).sum().backward()
    work = work_of(run)
    assert (work.flops, work.samples, work.tokens) == (oracle(net, 3), None, None)


def test_a_loop_that_does_not_ask_has_no_work() -> None:
    with start() as run:
        run.log({"loss": 1.0}, step=1)
    assert WORK not in darkit.load(run.name).info


@pytest.mark.parametrize(
    ("compute", "reason"),
    [
        (lambda net: net.layers[0](torch.ones(1, 4)), ""),
        (lambda net: Net()(torch.ones(1, 4)), "the model was not called in the block of count_step"),
        (lambda net: torch.compile(net, backend="eager")(torch.ones(1, 4)), "torch.compile"),
    ],
)
def test_what_cannot_be_counted_says_why(compute: Any, reason: str) -> None:
    net = Net()
    with start() as run, run.count_step(net, torch.ones(1, 4)):
        compute(net)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    work = work_of(run)
    assert work.uncounted == reason
    assert (work.flops is None) == bool(reason)


def test_a_model_that_threads_compute_is_refused() -> None:
    net = Net()
    with start() as run, run.count_step(nn.DataParallel(net)):
        net(torch.ones(3, 4)).sum().backward()
    assert work_of(run).uncounted == "DataParallel"


def test_a_closure_of_an_optimizer_is_refused() -> None:
    net = Net()
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=2)

    def closure() -> Tensor:
        loss = net(torch.ones(3, 4)).sum()
        loss.backward()
        return loss

    with start() as run, run.count_step(net):
        optimizer.step(closure)
    assert work_of(run).uncounted == "a closure of an optimizer"


def test_an_error_in_the_block_is_raised_and_nothing_is_recorded() -> None:
    run = start()
    with pytest.raises(ZeroDivisionError), run.count_step(Net()):
        raise ZeroDivisionError
    run.finish()
    assert WORK not in darkit.load(run.name).info


@pytest.mark.parametrize(
    ("arguments", "settings", "said"),
    [
        (("net",), {}, "count_step needs the model, an nn.Module, not str"),
        ((Net(),), {"samples": 0}, "samples must be a whole number of at least 1, not 0"),
        ((Net(),), {"tokens": 1.5}, "tokens must be a whole number of at least 1, not 1.5"),
    ],
)
def test_a_wrong_argument_is_refused(arguments: Any, settings: Any, said: str) -> None:
    with start() as run, pytest.raises(ConfigError, match=said), run.count_step(*arguments, **settings):
        pass
