"""Real handwritten digits, told by neurons that spike.

It needs darkit[examples].
"""

import darkit
from darkit.core import Predicter
from darkit.data.digits import digits
from darkit.models.snn import SNN, SNNConfig


def main():
    data = digits()
    run = darkit.fit(
        SNN(SNNConfig()),
        data.train,
        data.val,
        loss=data.loss,  # with the accuracy, which so becomes a column of the log
        max_step=400,
        lr=2e-3,
        log_step_interval=100,
    )

    print(f"{run.name} is {run.status}: {run.path}")
    print(run.log().select("step", "train_loss", "val_loss", "val_accuracy"))
    pictures, wanted = data.val[:10]
    found = Predicter.from_pretrained(run.name).predict(pictures).argmax(-1)
    print(f"ten of them: {wanted.tolist()}, told as {found.tolist()}")


if __name__ == "__main__":
    main()
