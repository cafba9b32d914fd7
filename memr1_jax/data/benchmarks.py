"""Finds, checks and honestly names every data set: `load_benchmark`."""

import collections
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping

from memr1_jax.data.beam import BEAM, load_beam
from memr1_jax.data.fact_consolidation import FACT_CONSOLIDATION, load_fact_consolidation
from memr1_jax.data.halumem import HALUMEM, load_halumem
from memr1_jax.data.locomo import split as split_of
from memr1_jax.data.longmemeval import FILES
from memr1_jax.data.personamem import QUESTIONS
from memr1_jax.data.personamem_v2 import PERSONAMEM_V2, load_personamem_v2
from memr1_jax.data.published import PathLike
from memr1_jax.data.readers import (
    Read,
    count,
    longmemeval_reader,
    personamem_reader,
    read_locomo,
    read_msc,
    read_own,
    set_reader,
)
from memr1_jax.data.realtalk import REALTALK, load_realtalk
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Source:
    """All that is particular to a data set.

    Attributes:
      read: reads it from a path; its parameters besides `path` and `strict` are the options.
      metrics: how answers are scored, a name of `bench.scoring.METRICS`.
      judge: the prompts of a judge, a name of `bench.judge.judge_prompts.PROMPTS`; empty where none
        is asked, since a choice is right or wrong.
      splits: whether it has train, validation and test; the others are for testing.
    """

    read: Callable[..., Read]
    metrics: str
    judge: str
    splits: bool = False


BENCHMARKS: dict[str, Source] = {
    "locomo": Source(read_locomo, "locomo", "locomo", splits=True),
    **{
        f"longmemeval_{edition}": Source(longmemeval_reader(edition), "short", "longmemeval")
        for edition in FILES
    },
    "msc": Source(read_msc, "short", "msc_strict"),
    **{
        f"personamem_{length}": Source(personamem_reader(length), "choice", "")
        for length in QUESTIONS
    },
    **{
        f"personamem_v2_{length}": Source(
            set_reader(
                published,
                functools.partial(load_personamem_v2, published=published, length=length),
            ),
            "choice",
            "",
        )
        for length, published in PERSONAMEM_V2.items()
    },
    **{
        f"beam_{size}": Source(
            set_reader(published, functools.partial(load_beam, published=published)),
            "short",
            "beam",
        )
        for size, published in BEAM.items()
    },
    "fact_consolidation": Source(
        set_reader(FACT_CONSOLIDATION, load_fact_consolidation), "accepted", ""
    ),
    **{
        f"halumem_{size.lower()}": Source(
            set_reader(published, functools.partial(load_halumem, published=published)),
            "short",
            "halumem",
        )
        for size, published in HALUMEM.items()
    },
    "realtalk": Source(set_reader(REALTALK, load_realtalk), "locomo", "locomo"),
    "own": Source(read_own, "by_question", "locomo", splits=True),
}


def source_of(name: str) -> Source:
    """Returns what is known about a data set; UserError where none has that name."""
    if name not in BENCHMARKS:
        raise UserError(f"There is no data set {name!r}; choose one of {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """Conversations with their questions, and what a table must say about their source.

    Attributes:
      name: of the data set, with the size of the part where it is not the whole.
      variant: the known edition of its file or files, "unknown" among them.
      sha256: the digest of each file that was read, by its name.
      split: "train", "validation" or "test"; "all" for everything that was read.
      conversations: those of the split.
    """

    name: str
    variant: str
    sha256: Mapping[str, str]
    split: str
    conversations: tuple[Conversation, ...]

    @functools.cached_property
    def counts(self) -> dict[str, int]:
        """Number of conversations, sessions, turns and questions."""
        return count(self.conversations)

    @functools.cached_property
    def kinds(self) -> dict[str, int]:
        """Number of questions of each kind."""
        kinds = (question.kind for c in self.conversations for question in c.questions)
        return dict(sorted(collections.Counter(kinds).items()))

    @property
    def description(self) -> str:
        """One line to print above a table."""
        split = "" if self.split == "all" else f", {self.split} split"
        sizes = ", ".join(
            f"{number:,} {what if number != 1 else what[:-1]}"
            for what, number in self.counts.items()
        )
        return f"{self.name}{split}: {sizes}; edition of the files: {self.variant}"


def load_benchmark(
    name: str,
    path: PathLike | None = None,
    *,
    split: str = "",
    strict: bool = False,
    **options: object,
) -> Benchmark:
    """Reads a data set from `path`, else from the cache, else from its public home.

    Names and their options:

    - `locomo`: `captions`, `adversarial` (see `locomo.load_conversations`); `audit`, or
      `audit_path` for a local copy: note what the audit of the answer key objects to.
    - `longmemeval_oracle`, `longmemeval_s`, `longmemeval_m`, `longmemeval_evidence_turns`: `limit`,
      the most questions to read.
    - `msc`: `cleaned_path` for the cleaned questions; `last_session` (see `msc.load_msc`).
    - `personamem_32k`, `personamem_128k`, `personamem_1M`: `contexts_path`, by default looked for
      next to the questions; `system_messages` (see `personamem.load_personamem`).
    - `personamem_v2_32k`, `personamem_v2_128k`, `beam_100K`, `beam_500K`, `beam_1M`,
      `fact_consolidation`, `halumem_medium`, `halumem_long` and `realtalk` need a path and have no
      options.
    - `own`: `session_gap`, `drop_unknown_turns` (see `load_own_dialogues`); it needs a path.

    Args:
      name: one of `BENCHMARKS`.
      path: the data set's file, or a folder that holds it under its published name.
      split: "train", "validation", "test", or empty for everything. Only LoCoMo (as in the
        Memory-R1 paper), files in its format and your own dialogues have splits.
      strict: whether a file of unknown content is an error instead of a warning.
      **options: of the data set.

    Raises:
      UserError: there is no such data set, option or split; a file is missing, broken or, with
        `strict`, unknown; or a known file does not hold what it is known to hold.
    """
    source = source_of(name)
    offered = [*inspect.signature(source.read).parameters]
    offered = [key for key in offered if key not in ("path", "strict")]
    for option in options:
        if option not in offered:
            has = ", ".join(offered) or "none"
            raise UserError(f"The data set {name} has no option {option!r}. Its options: {has}.")
    if split not in ("", "test") and not source.splits:
        raise UserError(f"The data set {name} is for testing alone; it has no split {split!r}.")
    read = source.read(path, strict, **options)
    ids = collections.Counter(conversation.id for conversation in read.conversations)
    twice = [identity for identity, number in ids.items() if number > 1]
    if twice:
        raise UserError(f"{read.files[0].path} has more than one conversation {twice[0]!r}.")
    chosen = read.conversations
    if split and source.splits:
        chosen = split_of(chosen, split)
    return Benchmark(
        name=read.name,
        variant=" + ".join(dict.fromkeys(file.edition for file in read.files)),
        sha256={file.path.name: file.sha256 for file in read.files},
        split=split or "all",
        conversations=tuple(chosen),
    )
