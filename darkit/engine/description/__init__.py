"""What a model can be built from again: its description, and the proof that the rebuilt model is the same."""
