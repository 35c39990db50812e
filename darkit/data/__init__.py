"""Data to train on: text with its tokenizer in windows, and a regression; each also a ``data=`` choice."""

from darkit.data.choice import DataChoice
from darkit.data.regression import regression
from darkit.data.text import embedded_documents, split_documents, text_data
from darkit.data.tokenizers import train_bpe
from darkit.data.windows import TokenWindows, unigram_cross_entropy

__all__ = [
    "DataChoice",
    "TokenWindows",
    "embedded_documents",
    "regression",
    "split_documents",
    "text_data",
    "train_bpe",
    "unigram_cross_entropy",
]
