"""Handwritten digits from scikit-learn: 1,797 images of 8 x 8 (Alpaydin and Kaynak, 1998)."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import torch

from darkit.data.objectives.labels import check_size, classification_loss
from darkit.data.objectives.tables import TableRows
from darkit.data.sources.choice import DataChoice
from darkit.data.sources.splits import check_val_fraction
from darkit.errors import DataError


def digits(
    val_fraction: float = 0.2, seed: int = 0, input_size: int | None = None, output_size: int | None = None
) -> DataChoice:
    """Load the digits.

    Args:
        val_fraction: Fraction held out for validation.
        seed: Seed of the split.
        input_size: Number of features, to check: 64.
        output_size: Number of classes, to check: 10.

    Returns:
        Rows of features (64) from 0 to 1 and the digit, the cross-entropy loss with the accuracy, and as baseline the
        loss of a uniform prediction.

    Raises:
        DataError: The fraction or a size is invalid, or scikit-learn is not installed.
    """
    check_val_fraction(val_fraction, needed=True)
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError("The digits need scikit-learn: pip install 'darkit[examples]'.") from error
    found: Any = load_digits()
    features = torch.from_numpy(found.data).float() / found.data.max()
    labels = torch.from_numpy(found.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    count = max(1, min(len(labels) - 1, round(val_fraction * len(labels))))
    val, train = order[:count], order[count:]
    check_size("input_size", input_size, features.shape[1])
    check_size("output_size", output_size, 10)
    digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in (features, labels, val.sort().values)))
    split = {"by": "fraction", "val_fraction": val_fraction, "seed": seed, "train": len(train), "val": len(val)}
    facts = {
        "label_names": [str(digit) for digit in range(10)],
        "split": {**split, "fingerprint": digest.hexdigest()},
    }
    return DataChoice(
        TableRows(features[train], labels[train], facts),
        TableRows(features[val], labels[val], facts),
        loss=classification_loss,
        baselines={"all ten alike": math.log(10)},
        settings={"input_size": features.shape[1], "output_size": 10},
    )
