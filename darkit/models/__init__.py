"""Small example models: plain modules with dataclass configs that import nothing of darkit."""
