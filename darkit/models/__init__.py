"""Small models to start from: plain modules with dataclass configs that import nothing of darkit."""
