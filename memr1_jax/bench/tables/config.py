"""The options of a table: which rows, on what data, with which models, under what limits."""

import dataclasses

from memr1_jax.bench.paper import TABLES
from memr1_jax.errors import UserError
from memr1_jax.training.config import check_counts, option

FACTS = ("noted", "extracted", "turns", "user_turns")
EMBEDDERS = ("tfidf", "static", "both", "minilm")
LATENCY = "latency"
PAPER = (*TABLES, LATENCY)
DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """All options of `experiments.evaluate`."""

    rows: str = option("bm25_turns", "Rows of the table, separated by commas.")
    benchmark: str = option("locomo", "Data set: locomo, msc, ... or synthetic.")
    data_path: str = option("", "The data set's file or folder. Empty: the cache, or a download.")
    contexts_path: str = option("", "PersonaMem: the contexts, if not beside the questions.")
    cleaned_path: str = option("", "MSC-Self-Instruct: the cleaned questions.")
    split: str = option("", "train, validation or test of LoCoMo or own dialogues; empty: all.")
    captions: bool = option(False, "LoCoMo: turns carry the caption of the image they share.")
    adversarial: bool = option(False, "LoCoMo: also ask category 5.")
    audit: bool = option(False, "LoCoMo: use the corrected answer key of the public audit.")
    max_questions: int = option(0, "Questions to ask, evenly spread; 0: all.")
    questions: str = option(
        "", 'File that lists the questions to ask: {"<conversation id>": [<index>, ...], ...}.'
    )

    model: str = option(
        "smollm2-135m", "The backbone: Hugging Face folder, hub name, or smollm2-135m."
    )
    backbones: str = option(
        "", "Further backbones for rows such as mem0:7b: 3b=<model>,7b=<model>; see --model."
    )
    agents: str = option(
        "",
        "Trained agents for rows such as memory_r1@grpo: grpo=<run folder>,sft=<run folder>,"
        " each of which has export/manager, export/answer, or both.",
    )
    answer_prompt: str = option("full", "Prompt file answer_<name>.txt, or the path of one's own.")
    manager_prompt: str = option(
        "full", "Prompt file manager_<name>.txt, or the path of one's own."
    )
    facts_prompt: str = option("full", "Prompt of the fact extractor.")
    facts: str = option(
        "extracted",
        "Facts that managers are given: written by the backbone, noted by the data set, turns, or"
        " of a chat with an assistant the user's turns alone.",
        FACTS,
    )
    embedder: str = option("tfidf", "How texts are embedded.", EMBEDDERS)
    features: int = option(1024, "Width of the hashed TF-IDF embedding.")

    memories: int = option(30, "Memories retrieved for each speaker for an answer.")
    neighbours: int = option(5, "Similar memories retrieved for each new fact.")
    memories_shown: int = option(20, "Memories that a manager is shown at most.")
    facts_per_call: int = option(0, "Facts that a manager is given at once; 0: those of a turn.")
    units: int = option(30, "Turns or observations that retrieval shows.")
    summaries: int = option(5, "Session summaries that retrieval shows.")
    chunks: int = option(2, "Chunks that retrieval shows.")
    chunk_tokens: int = option(256, "Tokens of a chunk.")
    last_tokens: int = option(4000, "Tokens of dialogue that the row last_tokens shows.")
    reranked: int = option(10, "Memories that the reranker leaves of all that were retrieved.")
    reranker: str = option("bm25", "What orders them anew.", ("bm25", "minilm"))

    max_prompt_length: int = option(0, "Tokens of a prompt at most; 0: as the model has positions.")
    answer_response_length: int = option(2048, "Tokens of an answer at most.")
    manager_response_length: int = option(2048, "Tokens of any other response at most.")
    batch: int = option(8, "Calls that run together; a power of two.")
    batch_tokens: int = option(65_536, "Tokens of prompts and responses that run together.")
    conversations: int = option(16, "Conversations that advance together.")
    dtype: str = option("auto", "Number format; auto: float32 on a CPU, else bfloat16.", DTYPES)
    mesh: str = option("", "Axes of the devices, as data:1,fsdp:8,tensor:1. Empty: one device.")
    seed: int = option(0, "Seed of random rows, of generated dialogues and of intervals.")

    judge_model: str = option("", "Model of --judge_url, or a local model; empty: no judge.")
    judge_url: str = option("", "OpenAI-compatible endpoint; its key is read from MEMR1_JUDGE_KEY.")

    against: str = option("", "Row from which the differences of all others are printed.")
    paper: str = option(
        "", f"Tables of the paper to print below ours, of {', '.join(PAPER)}; separated by commas."
    )
    output: str = option("runs/table", "Folder of the table; a started one is gone on with.")

    synthetic_conversations: int = option(1, "Generated dialogues, for --benchmark=synthetic.")
    synthetic_sessions: int = option(4, "Sessions of a generated dialogue.")
    synthetic_facts: int = option(4, "Facts told in a generated session.")


# What may change between two starts on one folder: it changes no figure of a finished row.
FREE = frozenset(
    {
        "rows",
        "output",
        "judge_model",
        "judge_url",
        "agents",
        "model",
        "backbones",
        "paper",
        "against",
    }
)


def check_table(options: TableConfig) -> None:
    """Raises UserError for numbers that no table can be made with, before anything is loaded."""
    least_one = ("batch", "batch_tokens", "conversations", "answer_response_length")
    least_one += ("manager_response_length", "features", "chunk_tokens", "last_tokens", "memories")
    check_counts(options, least_one)
    if options.batch & (options.batch - 1):
        raise UserError(f"--batch={options.batch} must be a power of two.")
    if unknown := [name for name in papers(options) if name not in PAPER]:
        raise UserError(f"--paper={unknown[0]} is none of {', '.join(PAPER)}.")
    if options.max_questions < 0:
        raise UserError(f"--max_questions={options.max_questions} must be 0 (all) or more.")
    if options.questions and options.max_questions:
        raise UserError("--questions names the questions to ask; leave out --max_questions.")


def papers(options: TableConfig) -> list[str]:
    """The names in `--paper`."""
    return [name.strip() for name in options.paper.split(",") if name.strip()]


def settings(options: TableConfig) -> dict:
    """The options that the figures of a row hang on."""
    return {name: v for name, v in dataclasses.asdict(options).items() if name not in FREE}
