"""The options of a table: which rows, on what data, with which models, under what limits."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from memr1_jax.bench.paper import TABLES
from memr1_jax.data.benchmarks import BENCHMARKS
from memr1_jax.data.dialogues import DataConfig, check_shares
from memr1_jax.data.own_turns import SESSION_GAP
from memr1_jax.data.synthetic import GENERATED
from memr1_jax.errors import UserError
from memr1_jax.options import SEEDS, at_least, check, current_names, option, with_default
from memr1_jax.parallel.mesh import parse_mesh
from memr1_jax.run.run_folder import OutputConfig

FACTS = ("noted", "extracted", "turns", "user_turns")
EMBEDDERS = ("tfidf", "static", "both", "minilm")
LATENCY = "latency"
PAPER = (*TABLES, LATENCY)
SYNTHETIC = "synthetic"
DTYPES = ("auto", "float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig:
    """Choose the dialogues and the questions."""

    data: str = option("locomo", "Data set.", (*BENCHMARKS, SYNTHETIC), formerly="benchmark")
    data_path: str = option(
        "",
        "The data set's file or folder, or hf:OWNER/NAME[/FILE]. Empty: the cache, or a download.",
    )
    contexts_path: str = option("", "PersonaMem: the contexts, if not next to the questions.")
    cleaned_path: str = option("", "MSC-Self-Instruct: the cleaned questions.")
    session_gap: float = option(
        SESSION_GAP,
        "Own dialogues: hours of a pause after which a session begins.",
        within=at_least(0),
    )
    drop_unknown_turns: bool = option(
        False, "Own dialogues: leave out questions and facts that name a turn which does not exist."
    )
    eval_split: str = option(
        "",
        "train, validation or test of LoCoMo, own or generated dialogues; empty: all, of generated"
        " ones test.",
        ("", "train", "validation", "test"),
        formerly="split",
    )
    captions: bool = option(False, "LoCoMo: turns carry the caption of the image they share.")
    adversarial: bool = option(False, "LoCoMo: also ask category 5.")
    audit: bool = option(False, "LoCoMo: use the corrected answer key of the public audit.")
    eval_questions: int = option(
        0, "Questions to ask, evenly spread; 0: all.", within=at_least(0), formerly="max_questions"
    )
    questions: str = option(
        "", 'File that lists the questions to ask: {"<conversation id>": [<index>, ...], ...}.'
    )
    synthetic_eval: int = option(
        1,
        "Generated dialogues, for --data=synthetic.",
        within=GENERATED,
        formerly="synthetic_conversations",
    )
    synthetic_sessions: int = option(4, "Sessions of a generated dialogue.", within=GENERATED)
    synthetic_facts: int = option(4, "Facts told in a generated session.", within=GENERATED)
    synthetic_changes: float = with_default(DataConfig, "synthetic_changes", 0.2)
    synthetic_endings: float = with_default(DataConfig, "synthetic_endings", 0.12)
    synthetic_repeats: float = with_default(DataConfig, "synthetic_repeats", 0.08)
    synthetic_cascades: float = with_default(DataConfig, "synthetic_cascades", 0.0)
    synthetic_absences: int = with_default(DataConfig, "synthetic_absences", 0)


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Choose the models that all rows run on, and what they are asked."""

    model: str = option(
        "smollm2-135m-q4", "The backbone: Hugging Face folder, hub name, or smollm2-135m-q4."
    )
    backbones: str = option(
        "", "Further backbones for rows such as mem0:7b: 3b=<model>,7b=<model>; see --model."
    )
    agents: str = option(
        "",
        "Trained agents for rows such as memory_r1@grpo: grpo=<run folder>,sft=<run folder>,"
        " each of which has export/manager, export/answer, or both.",
    )
    answer_prompt: str = option("full", "Prompt file answer_<name>.txt, or the path of your own.")
    manager_prompt: str = option("full", "Prompt file manager_<name>.txt, or the path of your own.")
    extraction_prompt: str = option(
        "full",
        "Prompt that asks the backbone for facts, where --facts=extracted: full, compact, or the"
        " path of one's own.",
        formerly="facts_prompt",
    )
    max_prompt_length: int = option(
        0, "Most tokens in a prompt; 0: as many as the model has positions.", within=at_least(0)
    )
    answer_response_length: int = option(2048, "Most tokens in an answer.", within=at_least(1))
    manager_response_length: int = option(
        2048, "Most tokens in any other response.", within=at_least(1)
    )


@dataclasses.dataclass(frozen=True)
class MemoryConfig:
    """Set what memory systems are given, keep and show."""

    facts: str = option(
        "extracted",
        "Facts that managers are given: written by the backbone, noted by the data set, turns, or,"
        " of a chat with an assistant, only the user's turns.",
        FACTS,
    )
    embedder: str = option("tfidf", "How texts are embedded.", EMBEDDERS)
    features: int = option(1024, "Width of the hashed TF-IDF embedding.", within=at_least(1))
    salvage: bool = option(False, "Keep the complete operations of a manager's broken response.")
    plain_marks: bool = option(
        False, "Exact match, SQuAD's F1: typographic apostrophes and dashes equal plain ones."
    )
    memories: int = option(
        30, "Memories retrieved for each speaker for an answer.", within=at_least(1)
    )
    neighbours: int = option(5, "Similar memories retrieved for each new fact.", within=at_least(1))
    memories_shown: int = option(20, "Most memories that a manager is shown.", within=at_least(1))
    facts_per_call: int = option(
        0, "Facts that a manager is given at once; 0: those of a turn.", within=at_least(0)
    )
    units: int = option(30, "Turns or observations that retrieval shows.", within=at_least(1))
    summaries: int = option(5, "Session summaries that retrieval shows.", within=at_least(1))
    chunks: int = option(2, "Chunks that retrieval shows.", within=at_least(1))
    chunk_tokens: int = option(256, "Tokens of a chunk.", within=at_least(1))
    last_tokens: int = option(
        4000, "Tokens of dialogue that the row last_tokens shows.", within=at_least(1)
    )
    reranked: int = option(
        10, "Memories that the reranker leaves of all that were retrieved.", within=at_least(1)
    )
    reranker: str = option("bm25", "What orders them again.", ("bm25", "minilm"))


@dataclasses.dataclass(frozen=True)
class LimitsConfig:
    """Set how much runs at once, and on what."""

    eval_batch: int = option(
        8, "Calls that run together; a power of two.", within=at_least(1), formerly="batch"
    )
    batch_tokens: int = option(
        65_536, "Tokens of prompts and responses that run together.", within=at_least(1)
    )
    conversations: int = option(16, "Conversations that advance together.", within=at_least(1))
    dtype: str = option("auto", "Number format; auto: float32 on a CPU, else bfloat16.", DTYPES)
    mesh: str = option("", "Axes of the devices, as data:1,fsdp:8,tensor:1. Empty: one device.")


@dataclasses.dataclass(frozen=True)
class TableConfig(OutputConfig, LimitsConfig, MemoryConfig, BackboneConfig, BenchmarkConfig):
    """Choose the rows, who judges them, and what the table shows."""

    output: str = with_default(OutputConfig, "output", "runs/table")
    rows: str = option("bm25_turns", "Rows of the table, separated by commas.")
    judge_model: str = option("", "Model of --judge_url, or a local model; empty: no judge.")
    judge_url: str = option("", "OpenAI-compatible endpoint; its key is read from MEMR1_JUDGE_KEY.")
    against: str = option("", "Row from which the differences of all others are printed.")
    paper: str = option(
        "", f"Tables of the paper to print below ours, of {', '.join(PAPER)}; separated by commas."
    )
    seed: int = option(
        0, "Seed of random rows, of generated dialogues and of intervals.", within=SEEDS
    )


# Options that may change between two starts on one folder: they change no figure of a finished
# row, or what they name is compared instead.
FREE = frozenset(
    {
        "rows",
        "output",
        "overwrite",
        "compilation_cache",
        "dtype",
        "data_path",
        "contexts_path",
        "cleaned_path",
        "questions",
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
    """Raises UserError for options that no table can be made with, before anything is loaded."""
    check(options)
    check_shares(options)
    if options.eval_batch & (options.eval_batch - 1):
        raise UserError(f"--eval_batch={options.eval_batch} must be a power of two.")
    if not names_in(options.rows):
        raise UserError("--rows is empty. Name at least one row, as --rows=bm25_turns,oracle.")
    if options.against and options.against not in names_in(options.rows):
        raise UserError(f"--against={options.against} is none of --rows={options.rows}.")
    if unknown := [name for name in papers(options) if name not in PAPER]:
        raise UserError(f"--paper={unknown[0]} is none of {', '.join(PAPER)}.")
    if options.questions and options.eval_questions:
        raise UserError("--questions names the questions to ask; leave out --eval_questions.")
    parse_mesh(options.mesh)


def names_in(text: str) -> list[str]:
    """Splits a list of names at its commas; each counts once."""
    return list(dict.fromkeys(filter(None, (name.strip() for name in text.split(",")))))


def papers(options: TableConfig) -> list[str]:
    """Lists the names in `--paper`."""
    return names_in(options.paper)


def settings(options: TableConfig) -> dict:
    """Lists the options that the figures of a row depend on."""
    return {name: v for name, v in dataclasses.asdict(options).items() if name not in FREE}


def earlier_settings(stored: Mapping[str, Any]) -> dict:
    """Reads what `settings` returned for a table that was begun, maybe under former names."""
    return current_names(TableConfig(), stored)
