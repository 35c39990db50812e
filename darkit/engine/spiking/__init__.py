"""Spiking models of any library: their neurons, the state that these keep, and what their spikes cost."""
