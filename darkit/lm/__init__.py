"""Language models under DarwinKit's names: `darkit.lm.main`, whose runs are in ``models/lm`` of the home."""
