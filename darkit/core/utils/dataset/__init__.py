"""Data of Hugging Face datasets for language models, with transformers' tokenizers, under DarwinKit's names.

`darkit.data` has more kinds, which need neither package.
"""

from darkit.core.utils.dataset import data_collator, packed, pretreat
from darkit.core.utils.dataset.tokenized_dataset import (
    create_tokenized_bert_dataset,
    create_tokenized_dataset,
    create_tokenized_gpt_dataset,
    create_tokenized_mask_dataset,
)

__all__ = [
    "create_tokenized_bert_dataset",
    "create_tokenized_dataset",
    "create_tokenized_gpt_dataset",
    "create_tokenized_mask_dataset",
    "data_collator",
    "packed",
    "pretreat",
]
