"""What is said in English of a model: what a step computes, its modules, and the receipt of one that spikes.

Also what a table or a chart leaves out, and how a fork differs.
"""

from __future__ import annotations

ENGLISH_MODEL = {
    "parameters": "Parameters",
    "parameters_of": "{all}, of which {trained} are trained",
    "samples_unit": "samples/s",
    "tokens_unit": "tokens/s",
    "flops": "FLOPs",
    "per_step": "{count} per step",
    "not_counted": "not counted: {reason}",
    "mfu_of": "{share} of {peak} ({source})",
    "tab_graph": "Modules",
    "graph_hint": "The modules of the model with their class, the shape of their output for the first batch of the "
    "training, and their parameters. The parameters of a module include those of its parts.",
    "graph_no_shapes": "The modules of the model with their class and parameters. Shapes are not recorded: {reason}.",
    "graph_unseen": "Not all calls were seen: {reason}.",
    "graph_more": "{count} more modules are not shown.",
    "graph_model": "(model)",
    "graph_output": "Shape of the output: {shape}",
    "graph_parameters": "{count} parameters",
    "graph_calls": "called {count} times",
    "graph_terminal": "With inputs and edges",
    "no_graph": "No modules are recorded, which the first step of a training does. "
    "This command builds the model from the run and prints them.",
    "energy_sampled": "Energy",
    "energy_spent": "{total} Wh in {time} ({each}), whoever used the GPUs",
    "fork_of": "{name}: fork of {parent}, {changes}",
    "fork_unchanged": "with its settings",
    "receipt_of": "Spiking receipt of {name}",
    "spiking_layers": "Layers of neurons",
    "spiking_synapses": "Synapses, per sample",
    "spiking_energy": "Energy, per sample",
    "energy_of": "{spent} nJ per sample, {share} of the {dense} nJ of the dense twin at the same time steps.",
    "energy_model": "This model",
    "energy_twin": "Dense twin",
    "rates_over_time": "Firing rate over time",
    "rasters": "Spikes of single samples",
    "more_rows": "and {count} more rows",
    "keys_more": "And {count} more keys below, in which the runs differ.",
    "curves_more": "and {count} more, which the pointer shows",
}
