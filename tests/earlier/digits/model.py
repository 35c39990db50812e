class MLP(nn.Module):
    """The perceptron.

    Args:
        config: Its sizes.
    """

    def __init__(self, config: MLPConfig) -> None:
        super().__init__()
        self.config = config
        sizes = [config.input_size, *config.hidden_sizes]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), _ACTIVATIONS[config.activation](), nn.Dropout(config.dropout)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], config.output_size))

    def forward(self, features: Tensor) -> Tensor:
        """Returns outputs (B, O) of features (B, F), or of samples of any shape with F numbers each."""
        outputs: Tensor = self.layers(features.flatten(1))
        return outputs
