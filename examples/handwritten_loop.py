"""A loop of one's own: the integration guide's trainer and predicter, on a regression that its model can learn."""

import torch
import torch.nn.functional as F
from mymodel import MyModel, MyModelConfig
from torch.utils.data import DataLoader, TensorDataset

import darkit
from darkit.core import Predicter, Trainer, TrainerConfig
from darkit.data import regression


class MyTrainerConfig(TrainerConfig):
    device = "cpu"
    lr = 3e-3
    batch_size = 32
    max_step = 400
    save_step_interval = 100
    eval_step_interval = 100


class MyTrainer(Trainer):
    def _get_optimizer(self):
        return torch.optim.Adam(self.model.parameters(), lr=self.config.lr)

    def train(self, train_dataset, val_dataset=None):
        loader = DataLoader(train_dataset, batch_size=self.config.batch_size, shuffle=True)
        val_loader = DataLoader(val_dataset, batch_size=256)
        self.optimizer = self._get_optimizer()
        for step in range(self.max_step):
            if step % len(loader) == 0:
                batches = iter(loader)
            inputs, labels = (part.to(self.config.device) for part in next(batches))
            loss = F.mse_loss(self.model(inputs), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()

            self.log(step=step + 1, train_loss=loss)
            self.current_step = step
            self._auto_validate(val_loader)
            self._auto_save_pretrained()


class MyPredicter(Predicter):
    def predict(self, input):
        with torch.inference_mode():
            return self.model(input.to(self.device))


def main():
    Trainer.register(MyModel.__name__, MyTrainer)
    Predicter.register(MyModel.__name__, MyPredicter)

    data = regression()
    train, val = TensorDataset(*data.train), TensorDataset(*data.val)
    trainer = Trainer(MyModel(MyModelConfig(hidden_size=48)), MyTrainerConfig(), loss=F.mse_loss)
    trainer.train(train, val)

    run = darkit.load(trainer.save_directory.name)
    print(f"{run.name} is {run.status}: {run.path}")
    for checkpoint in run.checkpoints():
        print(f"{checkpoint.name}: val_loss {checkpoint.metrics['val_loss']:.3f}")
    print(f"always the mean: {data.baselines['always the mean']:.3f}")

    predicter = Predicter.from_pretrained(run.name)
    inputs, labels = data.val
    error = F.mse_loss(predicter.predict(inputs).cpu(), labels)
    print(f"{type(predicter).__name__} found {run.latest_checkpoint().name} by the run's name: error {error:.3f}")


if __name__ == "__main__":
    main()
