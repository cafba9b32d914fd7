"""The dialogues that a table is made on, and a title that states their origin."""

import collections
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from memr1_jax.bench.harness import asking
from memr1_jax.bench.tables.table_config import SYNTHETIC, TableConfig
from memr1_jax.data.benchmarks import Source, load_benchmark, source_of
from memr1_jax.data.question_lists import listed, read_question_list
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.options import user_path
from memr1_jax.run.checksums import file_digest


@dataclasses.dataclass(frozen=True)
class TableData:
    """Conversations with the questions that are asked.

    `statistics` are conversations whose words an embedder may count: those to learn from, or, where
    a data set has none, the evaluated ones, from which it learns nothing but words. `title` says
    what all this is, and `sha256` has a digest for each file. `irregular` counts what the reader
    left out or changed, such as evidence that names no turn.
    """

    title: str
    sha256: Mapping[str, str]
    conversations: list[Conversation]
    statistics: list[Conversation]
    summaries: Mapping[str, Mapping[int, str]]
    irregular: Mapping[str, int]


def table_source(benchmark: str) -> Source:
    """Returns the source of a table's data set; generated dialogues are like LoCoMo's."""
    return source_of("locomo" if benchmark == SYNTHETIC else benchmark)


def load_table_data(options: TableConfig, folder: Path, again: bool = False) -> TableData:
    """Reads or generates what the options name; UserError where that is not possible.

    Generated dialogues that `folder` has are read, unless they are to be generated `again`.
    """
    if options.data == SYNTHETIC:
        return _synthetic(options, folder, again)
    given = {
        "captions": options.captions,
        "adversarial": options.adversarial,
        "audit": options.audit,
        "contexts_path": options.contexts_path,
        "cleaned_path": options.cleaned_path,
    }
    given = {name: value for name, value in given.items() if value}
    if options.data == "own":
        given["session_gap"] = options.session_gap
        given["drop_unknown_turns"] = options.drop_unknown_turns
    path = options.data_path or None
    found = load_benchmark(options.data, path, split=options.eval_split, **given)
    conversations = list(found.conversations)
    statistics, summaries = conversations, {}
    if options.data == "locomo":
        from memr1_jax.data.locomo import find_locomo
        from memr1_jax.data.locomo_summaries import read_summaries

        statistics = list(load_benchmark("locomo", path, split="train").conversations)
        summaries = read_summaries(find_locomo(path))
    return _data(options, found.description, found.sha256, conversations, statistics, summaries)


def _synthetic(options: TableConfig, folder: Path, again: bool) -> TableData:
    from memr1_jax.data.locomo import load_conversations, split
    from memr1_jax.data.synthetic import write_synthetic

    path = folder / "dialogues.json"
    name = options.eval_split or "test"
    if again or not path.exists():
        counts = {"train": 1, "validation": 0, "test": 0}
        counts[name] = options.synthetic_eval
        write_synthetic(
            path,
            options.seed,
            **counts,
            num_sessions=options.synthetic_sessions,
            facts_per_session=options.synthetic_facts,
            changes=options.synthetic_changes,
            endings=options.synthetic_endings,
            repeats=options.synthetic_repeats,
            cascades=options.synthetic_cascades,
            absences=options.synthetic_absences,
        )
    conversations = load_conversations(path, adversarial=options.synthetic_absences > 0)
    digest = {path.name: file_digest(path)}
    chosen = split(conversations, name)
    asked = sum(len(conversation.questions) for conversation in chosen)
    title = f"Generated dialogues: {len(chosen)} conversations, {asked} questions"
    return _data(options, title, digest, chosen, split(conversations, "train"), {})


def _data(options, title, sha256, conversations, statistics, summaries) -> TableData:
    sha256 = dict(sha256)
    if options.questions:
        path = user_path(options.questions)
        chosen = listed(conversations, read_question_list(path))
        sha256[path.name] = file_digest(path)
        which = f"those of the list {path.name}, of"
    else:
        chosen, which = asking(conversations, options.eval_questions), "evenly spread over"
    total = sum(len(conversation.questions) for conversation in conversations)
    asked = sum(len(conversation.questions) for conversation in chosen)
    if not asked:
        raise UserError(f"{title}: there is no question to ask.")
    if asked < total:
        title += (
            f"; asked here: {asked} of the {total} questions, {which} "
            f"{len(chosen)} of {len(conversations)} conversations"
        )
    notes = (note.what for conversation in conversations for note in conversation.notes)
    irregular = dict(collections.Counter(notes))
    return TableData(title, sha256, chosen, statistics, summaries, irregular)
