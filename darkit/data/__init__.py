"""Data to train on, each also a ``data=`` choice: text for every objective, tables, and a regression."""

from darkit.data.choice import DataChoice
from darkit.data.collate import Pad
from darkit.data.labelled import LabelledTexts, labelled_text
from darkit.data.masked import masked_text
from darkit.data.masking import MaskedTokens, Masking
from darkit.data.pairs import SentencePairs
from darkit.data.regression import regression
from darkit.data.seq2seq import TextPairs, text_pairs
from darkit.data.specials import specials_of, word_beginnings
from darkit.data.stream import TokenStream, streamed_text
from darkit.data.tables import table_data
from darkit.data.text import embedded_documents, split_documents, text_data
from darkit.data.tokenizers import train_bpe
from darkit.data.windows import DocumentWindows, TokenRow, TokenWindows, unigram_cross_entropy

__all__ = [
    "DataChoice",
    "DocumentWindows",
    "LabelledTexts",
    "MaskedTokens",
    "Masking",
    "Pad",
    "SentencePairs",
    "TextPairs",
    "TokenRow",
    "TokenStream",
    "TokenWindows",
    "embedded_documents",
    "labelled_text",
    "masked_text",
    "regression",
    "specials_of",
    "split_documents",
    "streamed_text",
    "table_data",
    "text_data",
    "text_pairs",
    "train_bpe",
    "unigram_cross_entropy",
    "word_beginnings",
]
