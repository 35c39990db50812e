"""Text as tokens: tokenizers, prepared shards, windows and streams."""
