"""The tasks of models, as ``run.json`` records them."""

CAUSAL = "causal"
MASKED = "masked"
CLASSIFICATION = "classification"
REGRESSION = "regression"
SEQ2SEQ = "seq2seq"
TASKS = CAUSAL, MASKED, CLASSIFICATION, REGRESSION, SEQ2SEQ
