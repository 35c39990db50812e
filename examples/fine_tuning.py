"""A transformers model goes in untouched: here it learns to tell questions from statements.

It needs darkit[hf]. So that it runs without a network, the model has fresh weights, made from a config; with one, take

    model = AutoModelForSequenceClassification.from_pretrained("prajjwal1/bert-tiny", num_labels=2)

and ``tokenizer="prajjwal1/bert-tiny"`` for the data: nothing else changes.
"""

import random

import transformers

import darkit
from darkit.core import Predicter
from darkit.data import labelled_text

SUBJECTS = ["the parser", "a module", "the loop", "this class", "the file", "a test", "the user", "an import"]
VERBS = ["read", "open", "find", "change", "need", "close", "call", "make"]
OBJECTS = ["a name", "the list", "that value", "the module", "an object", "the text", "a number", "the path"]


def sentences(count=2000):
    draw = random.Random(0)  # noqa: S311 - sentences, not secrets
    for _ in range(count):
        subject, verb, thing = draw.choice(SUBJECTS), draw.choice(VERBS), draw.choice(OBJECTS)
        question = draw.random() < 0.5
        text = f"does {subject} {verb} {thing}" if question else f"{subject} does {verb} {thing}"
        yield {"text": text, "label": "question" if question else "statement"}


def main():
    data = labelled_text(list(sentences()), vocab_size=200, context_length=16)
    config = transformers.BertConfig(
        vocab_size=data.settings["vocab_size"],
        max_position_embeddings=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=2,
        id2label={0: "question", 1: "statement"},
        label2id={"question": 0, "statement": 1},
    )
    model = transformers.BertForSequenceClassification(config)
    run = darkit.fit(model, data.train, data.val, tokenizer=data.tokenizer, max_step=150, lr=2e-3, log_step_interval=50)

    print(f"{run.name} is {run.status}: {run.path}")
    print(f"val_loss {run.log()['val_loss'].drop_nulls()[-1]:.3f}")
    predicter = Predicter.from_pretrained(run.name)
    for text in ("does the loop call a name", "the loop does need a name"):
        print(f"{text}: {predicter.predict(text)}")


if __name__ == "__main__":
    main()
