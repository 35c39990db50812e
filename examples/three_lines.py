"""The same regression without a trainer of one's own: darkit.fit does it all."""

import torch.nn.functional as F
from mymodel import MyModel, MyModelConfig

import darkit
from darkit.core import Predicter
from darkit.data import regression


def main():
    data = regression()
    model = MyModel(MyModelConfig(hidden_size=48))
    run = darkit.fit(model, data.train, data.val, loss=F.mse_loss, max_step=400, lr=3e-3, log_step_interval=100)

    print(f"{run.name} is {run.status}: {run.path}")
    print(run.log().select("step", "train_loss", "val_loss"))
    prediction = Predicter.from_pretrained(run.name).predict(data.val[0][:1])
    print(f"predicted by name: {[round(value, 2) for value in prediction[0, :3].tolist()]} ...")


if __name__ == "__main__":
    main()
