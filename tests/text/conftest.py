"""A byte-level tokenizer trained on the spot, so that tests need no download."""

import json
import random

import pytest

from memr1_jax.text.byte_table import build_byte_table

VOCAB_SIZE = 700


@pytest.fixture(scope="session")
def tokenizer():
    import tokenizers

    rng = random.Random(0)
    names = ["Ana", "Björn", "Chloé", "Dmitri", "王芳", "Zoë 🎈"]
    texts = []
    for i in range(400):
        text = f'{rng.choice(names)} likes tea, and a "quoted" dog; path C:\\x\n{rng.random()}'
        event = rng.choice(["ADD", "UPDATE", "DELETE", "NONE"])
        texts += [
            json.dumps({"memory": [{"id": str(i % 9), "text": text, "event": event}]}),
            json.dumps({"op": event, "id": i % 9, "text": text}, ensure_ascii=False) + "\n",
            f"**Answer:** {text}",
        ]
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    # No pattern: merges may cross from words into quotes and braces, as in real vocabularies.
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
        add_prefix_space=False, use_regex=False
    )
    model.decoder = tokenizers.decoders.ByteLevel()
    model.train_from_iterator(
        texts,
        tokenizers.trainers.BpeTrainer(
            vocab_size=VOCAB_SIZE - 10,
            special_tokens=["<|end|>"],
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=12,
            show_progress=False,
        ),
    )
    return model


@pytest.fixture(scope="session")
def byte_table(tokenizer):
    return build_byte_table(tokenizer, VOCAB_SIZE)
