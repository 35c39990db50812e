"""What is said in English of a model: what a step computes, and the receipt of one that spikes."""

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
}
