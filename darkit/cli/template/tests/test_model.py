import darkit
from data import make_data
from model import Model, ModelConfig


def test_the_model_learns(tmp_path, monkeypatch):
    monkeypatch.setenv("DARWIN_KIT_HOME", str(tmp_path))
    data = make_data()
    run = darkit.fit(Model(ModelConfig()), data.train, data.val, max_step=300, lr=3e-3, name="test")
    assert run.status == "finished"
    assert run.log()["val_loss"].drop_nulls()[-1] < 0.5 * data.baselines["always zero"]
