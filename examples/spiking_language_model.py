"""A spiking language model: how often its neurons fire, what work that saves, and what it writes.

It needs darkit[snn].
"""

import darkit
from darkit.core import Predicter
from darkit.data import text_data
from darkit.models.spikegpt import SpikeGPT, SpikeGPTConfig


def main():
    data = text_data(context_length=64, vocab_size=512)  # English prose that every Python carries
    model = SpikeGPT(
        SpikeGPTConfig(vocab_size=512, context_length=64, num_layers=2, hidden_size=128, feed_forward_size=448)
    )
    run = darkit.fit(
        model,
        data.train,
        data.val,
        tokenizer=data.tokenizer,
        max_step=100,
        batch_size=16,
        lr=3e-3,
        warmup_step=10,
        eval_iters=20,
        log_step_interval=50,
    )

    last = run.log().tail(1)
    print(f"{run.name} is {run.status}: {run.path}")
    print(f"val_loss {last['val_loss'][0]:.3f}, unigram model {data.baselines['unigram model']:.3f}")
    for layer in range(2):
        rate = last[f"firing_rate_blocks.{layer}.mixing_neurons"][0]
        print(f"block {layer}: {rate:.1%} of the neurons before its mixing fire at a token")
    print(f"energy saved: {1 - last['energy_nj'][0] / last['energy_dense_nj'][0]:.1%}")
    print("The import", end="")  # generated token by token, with a state of constant size
    for piece in Predicter.from_pretrained(run.name).predict("The import", max_new_tokens=60, top_k=40, seed=0):
        print(piece, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
