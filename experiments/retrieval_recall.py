r"""Prints how much of a question's evidence retrieval finds, compared with BM25.

Memories are the raw turns `speaker: text` of a whole conversation, the query is the question.
Weights come from the turns of the training and validation conversations.

    python -m experiments.retrieval_recall --data_path=locomo10.json --model=<model folder>
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.command_line import run
from memr1_jax.bench.systems.ranking import bm25_scores
from memr1_jax.bench.systems.text_bank import Embed
from memr1_jax.data.locomo import SPLITS, find_locomo, load_conversations, split
from memr1_jax.data.types import Conversation, Question
from memr1_jax.errors import UserError
from memr1_jax.memory.bank import bank_from_facts
from memr1_jax.memory.build_embedder import build_static, build_tfidf
from memr1_jax.memory.embedder import Embedder, concatenate_embedders, embed
from memr1_jax.memory.retrieval import retrieve
from memr1_jax.models.bert import minilm_embedder
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.models.hf.tokenizer import load_tokenizer
from memr1_jax.models.hf.wheels import wheel_member
from memr1_jax.options import at_least, between, option
from memr1_jax.run.progress import table
from memr1_jax.text.plain import one_line, plain_encoder, whole

DEPTHS = (5, 10, 30)


@dataclasses.dataclass(frozen=True)
class RecallConfig:
    """Choose the dialogues and the embedders that are compared."""

    data_path: str = option("", "LoCoMo's JSON file; empty: the cache, else a download.")
    model: str = option("", "Model whose tokenizer is used; empty: train one.")
    features: int = option(512, "Width of the TF-IDF vectors.", within=at_least(1))
    mix: float = option(0.8, "Share of TF-IDF in the concatenation.", within=between(0, 1))
    static: bool = option(True, "Measure static vectors too (16 MB from PyPI).")
    minilm: bool = option(True, "Measure all-MiniLM-L6-v2 too (84 MB from PyPI).")


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
        questions = _with_evidence(conversation)
        if not questions:
            continue
        rankings = rank(memories(conversation), [question.question for question in questions])
        for ranking, question in zip(rankings, questions, strict=True):
            evidence = {conversation.positions[turn] for turn in question.evidence}
            rows.append(recall(list(ranking), list(evidence)))
    return np.mean(rows, axis=0) if rows else np.full(len(DEPTHS), np.nan)


def _with_evidence(conversation: Conversation) -> list[Question]:
    return [question for question in conversation.questions if question.evidence]


def rank_by_bm25(texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Ranks by BM25 (rank_bm25, its defaults) over lower-case words."""
    scores = bm25_scores(texts)
    return np.argsort(-np.array([scores(query) for query in queries]), axis=1, kind="stable")


def rank_by_vectors(embed_texts: Embed, texts: Sequence[str], queries: Sequence[str]) -> np.ndarray:
    """Ranks by the inner product of the vectors of texts and queries."""
    scores = embed_texts(queries) @ embed_texts(texts).T
    return np.argsort(-scores, axis=1, kind="stable")


class Sizes(NamedTuple):
    """Rows for the turns and the questions of any conversation, and the tokens of the longest."""

    turns: int
    questions: int
    width: int


def most(conversations: Sequence[Conversation], tokenizer) -> Sizes:
    """Measures the conversations, so that one program fits all and no text is cut.

    There are at least as many turns as the deepest ranking has places.
    """
    tokenize = plain_encoder(tokenizer)
    texts = {text for c in conversations for text in memories(c)}
    texts |= {question.question for c in conversations for question in _with_evidence(c)}
    return Sizes(
        max(max(DEPTHS), *(len(c.turns) for c in conversations)),
        max(1, *(len(_with_evidence(c)) for c in conversations)),
        max(1, *(len(tokenize(one_line(text))) for text in texts)),
    )


def rank_by_embedder(
    tokenizer,
    embedder: Embedder,
    sizes: Sizes,
    texts: Sequence[str],
    queries: Sequence[str],
) -> np.ndarray:
    """Ranks by the package's own path: one bank, its keys, and top-k in compiled code.

    `sizes` are those of `most`.
    """
    tokenize = plain_encoder(tokenizer)

    def encode(texts, rows):
        ids = [tokenize(one_line(text)) for text in texts]
        empty = np.zeros((len(ids), 1))
        return bank_from_facts(
            ids, empty, [0] * len(ids), [0] * len(ids), capacity=rows, width=sizes.width
        )

    found = _search(embedder, encode(texts, sizes.turns), encode(queries, sizes.questions))
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


def main(options: RecallConfig) -> None:
    """Prints the table."""
    conversations = load_conversations(find_locomo(options.data_path or None))
    parts = {name: split(conversations, name) for name in SPLITS}
    if not any(_with_evidence(conversation) for conversation in conversations):
        raise UserError(
            f"No question of {options.data_path} names the turns that hold its answer, so there is"
            ' nothing to find. Give --data_path a file whose questions have "evidence".'
        )
    known = parts["train"] + parts["validation"]
    texts = [text for conversation in known for text in memories(conversation)]
    if options.model:
        tokenizer, name = load_tokenizer(resolve_model(options.model)), options.model
    else:
        tokenizer = train_tokenizer(texts)
        name = "a byte-level BPE of 4,096 tokens, trained here on train and validation turns"
    size = max(tokenizer.get_vocab().values()) + 1
    sizes = most(conversations, tokenizer)

    tfidf = build_tfidf(tokenizer, size, texts, options.features)
    embedders = {f"TF-IDF, {options.features} features": tfidf}
    if options.static:
        files = (
            wheel_member("wordllama", "wordllama/weights/l2_supercat_256.safetensors"),
            wheel_member("wordllama", "wordllama/tokenizers/l2_supercat_tokenizer_config.json"),
        )
        static = build_static(tokenizer, size, texts, *files)
        embedders["static vectors"] = static
        both = concatenate_embedders(tfidf, static, options.mix)
        embedders[f"both, {options.mix:g} TF-IDF"] = both
    methods = {"BM25": rank_by_bm25}
    for label, embedder in embedders.items():
        embedder = jax.device_put(embedder)
        methods[label] = functools.partial(rank_by_embedder, tokenizer, embedder, sizes)
    if options.minilm:
        methods["MiniLM (all-MiniLM-L6-v2)"] = functools.partial(rank_by_vectors, minilm_embedder())

    counts = {name: sum(len(_with_evidence(c)) for c in part) for name, part in parts.items()}
    lines = []
    for label, rank in methods.items():
        found = np.concatenate([mean_recall(rank, part) for part in parts.values()])
        lines.append(
            [label, *("–" if np.isnan(value) else f"{100 * value:.1f}" for value in found)]
        )
    print(f"Tokenizer: {name}")
    asked = ", ".join(f"{count} {name}" for name, count in counts.items())
    table(
        f"Evidence recall in percent, categories 1 to 4; questions with evidence: {asked}",
        ["method", *(f"{part} @{depth}" for part in parts for depth in DEPTHS)],
        lines,
    )


def command(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    run(RecallConfig, main, __doc__, argv)


if __name__ == "__main__":
    command()
