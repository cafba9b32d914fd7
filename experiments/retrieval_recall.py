r"""Prints how much of a question's evidence retrieval finds, beside BM25.

Memories are the raw turns `speaker: text` of a whole conversation, the query is the question.
Weights come from the turns of the training and validation conversations.

    python -m experiments.retrieval_recall --data_path=locomo10.json --model=<model folder>
"""

import functools
import sys
from collections.abc import Sequence

import jax
import numpy as np
from absl import app, flags

from memr1_jax.bench.systems.bank import Embed
from memr1_jax.bench.systems.search import bm25_scores
from memr1_jax.data.locomo import SPLITS, find_locomo, load_conversations, split
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import bank_from_facts
from memr1_jax.memory.build_embedder import build_static, build_tfidf
from memr1_jax.memory.embedder import Embedder, concatenate_embedders, embed
from memr1_jax.memory.retrieval import retrieve
from memr1_jax.models.bert import minilm_embedder
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.models.hf.tokenizer import load_tokenizer
from memr1_jax.models.hf.wheels import wheel_member
from memr1_jax.run.progress import table
from memr1_jax.text.plain import one_line, plain_encoder, whole

DEPTHS = (5, 10, 30)
CAPACITY, WIDTH, BATCH = 768, 128, 256  # turns, tokens in a turn, questions

_DATA_PATH = flags.DEFINE_string("data_path", None, "LoCoMo's JSON file; default: the cache.")
_MODEL = flags.DEFINE_string("model", None, "Model whose tokenizer is used; default: train one.")
_FEATURES = flags.DEFINE_integer("features", 512, "Width of the TF-IDF vectors.")
_MIX = flags.DEFINE_float("mix", 0.8, "Share of TF-IDF in the concatenation.")
_STATIC = flags.DEFINE_bool("static", True, "Measure static vectors too (16 MB from PyPI).")
_MINILM = flags.DEFINE_bool("minilm", True, "Measure all-MiniLM-L6-v2 too (84 MB from PyPI).")


def memories(conversation: Conversation) -> list[str]:
    """Returns all turns as `speaker: text`, in order."""
    return [f"{turn.speaker}: {turn.text}" for turn in conversation.turns]


def recall(ranking: Sequence[int], evidence: Sequence[int]) -> list[float]:
    """Returns the share of the evidence among the first 5, 10 and 30 of a ranking."""
    return [len(set(ranking[:depth]) & set(evidence)) / len(evidence) for depth in DEPTHS]


def mean_recall(rank, conversations: Sequence[Conversation]) -> np.ndarray:
    """Averages recall over all questions that have evidence: [3] for the three depths.

    `rank(texts, queries)` returns a ranking of the texts, at least 30 long, for each query.
    """
    rows = []
    for conversation in conversations:
        questions = [question for question in conversation.questions if question.evidence]
        rankings = rank(memories(conversation), [question.question for question in questions])
        for ranking, question in zip(rankings, questions, strict=True):
            evidence = {conversation.positions[turn] for turn in question.evidence}
            rows.append(recall(list(ranking), list(evidence)))
    return np.mean(rows, axis=0)


def rank_by_bm25(texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Ranks by BM25 (rank_bm25, its defaults) over lower-case words."""
    scores = bm25_scores(texts)
    return np.argsort(-np.array([scores(query) for query in queries]), axis=1, kind="stable")


def rank_by_vectors(embed_texts: Embed, texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Ranks by the inner product of the vectors of texts and queries."""
    scores = embed_texts(queries) @ embed_texts(texts).T
    return np.argsort(-scores, axis=1, kind="stable")


def rank_by_embedder(
    tokenizer, embedder: Embedder, texts: Sequence[str], queries: Sequence[str]
) -> np.ndarray:
    """Ranks by the package's own path: one bank, its keys, and top-k in compiled code."""
    tokenize = plain_encoder(tokenizer)

    def encode(texts, rows):
        ids = [tokenize(one_line(text)) for text in texts]
        empty = np.zeros((len(ids), 1))
        return bank_from_facts(
            ids, empty, [0] * len(ids), [0] * len(ids), capacity=rows, width=WIDTH
        )

    if len(texts) > CAPACITY or len(queries) > BATCH:
        raise UserError(
            f"A conversation has {len(texts)} turns and {len(queries)} questions, more than the "
            f"{CAPACITY} and {BATCH} that this experiment holds."
        )
    found = _search(embedder, encode(texts, CAPACITY), encode(queries, BATCH))
    return np.asarray(found.slot)[: len(queries)]


@jax.jit
def _search(embedder, bank, queries):
    embed_rows = jax.vmap(embed, (None, 0, 0))
    bank = bank.replace(key=embed_rows(embedder, bank.tokens, bank.length))
    keys = embed_rows(embedder, queries.tokens, queries.length)
    return jax.vmap(lambda key: retrieve(bank, key, max(DEPTHS)))(keys)


def train_tokenizer(texts: Sequence[str]):
    """Trains a byte-level BPE of 4,096 tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, initial_alphabet=alphabet, show_progress=False, special_tokens=["<end>"]
    )
    backend.train_from_iterator(map(whole, texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<end>")


def main(_):
    """Prints the table."""
    conversations = load_conversations(find_locomo(_DATA_PATH.value))
    known = split(conversations, "train") + split(conversations, "validation")
    texts = [text for conversation in known for text in memories(conversation)]
    if _MODEL.value:
        tokenizer, name = load_tokenizer(resolve_model(_MODEL.value)), _MODEL.value
    else:
        tokenizer = train_tokenizer(texts)
        name = "a byte-level BPE of 4,096 tokens, trained here on train and validation turns"
    size = max(tokenizer.get_vocab().values()) + 1

    tfidf = build_tfidf(tokenizer, size, texts, _FEATURES.value)
    embedders = {f"TF-IDF, {_FEATURES.value} features": tfidf}
    if _STATIC.value:
        files = (
            wheel_member("wordllama", "wordllama/weights/l2_supercat_256.safetensors"),
            wheel_member("wordllama", "wordllama/tokenizers/l2_supercat_tokenizer_config.json"),
        )
        static = build_static(tokenizer, size, texts, *files)
        embedders["static vectors"] = static
        both = concatenate_embedders(tfidf, static, _MIX.value)
        embedders[f"both, {_MIX.value:g} TF-IDF"] = both
    methods = {"BM25": rank_by_bm25}
    for label, embedder in embedders.items():
        embedder = jax.device_put(embedder)
        methods[label] = functools.partial(rank_by_embedder, tokenizer, embedder)
    if _MINILM.value:
        methods["MiniLM (all-MiniLM-L6-v2)"] = functools.partial(rank_by_vectors, minilm_embedder())

    parts = {name: split(conversations, name) for name in SPLITS}
    counts = {
        name: sum(bool(question.evidence) for c in part for question in c.questions)
        for name, part in parts.items()
    }
    rows = []
    for label, rank in methods.items():
        found = np.concatenate([mean_recall(rank, part) for part in parts.values()])
        rows.append([label, *(f"{100 * value:.1f}" for value in found)])
    print(f"Tokenizer: {name}")
    asked = ", ".join(f"{count} {name}" for name, count in counts.items())
    table(
        f"Evidence recall in percent, categories 1 to 4; questions with evidence: {asked}",
        ["method", *(f"{part} @{depth}" for part in parts for depth in DEPTHS)],
        rows,
    )


def _main(argv):
    try:
        main(argv)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(_main)
