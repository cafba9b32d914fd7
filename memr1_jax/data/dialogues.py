"""The dialogues that a run names: where they are, and which are learned from or evaluated."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

from memr1_jax.data.augment import AugmentOptions, with_copies
from memr1_jax.data.curriculum import in_stages, parse_curriculum
from memr1_jax.data.hub import one_file
from memr1_jax.data.locomo import find_locomo, load_conversations, split
from memr1_jax.data.mixtures import SOURCES, parse_mixture, parse_paths
from memr1_jax.data.msc import MSC, load_msc
from memr1_jax.data.own_dialogues import load_own_dialogues, turns_as_facts
from memr1_jax.data.own_turns import SESSION_GAP
from memr1_jax.data.published import find
from memr1_jax.data.synthetic import GENERATED, generate_conversations, write_synthetic
from memr1_jax.data.types import Conversation, Question
from memr1_jax.data.wordings import WordingOptions
from memr1_jax.errors import UserError
from memr1_jax.options import at_least, between, option, with_options
from memr1_jax.parallel.distributed import barrier, is_main

_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Choose the dialogues to learn from and to evaluate on."""

    data: str = option(
        "locomo",
        f"Source of the dialogues: {', '.join(SOURCES)}; or several with their weights in a batch,"
        " as locomo:3,synthetic:1. A set of weight 0 serves evaluation and demonstrations alone.",
    )
    data_path: str = option(
        "",
        "LoCoMo file, or a file in its format; empty: the cache, else a download. With --data=own:"
        " JSON lines, see experiments/README.md. hf:OWNER/NAME[/FILE] is a data set of the hub."
        " Several data sets: locomo=FILE,own=FILE.",
    )
    session_gap: float = option(
        SESSION_GAP,
        "Hours of a pause after which a session begins, in own dialogues whose turns have times and"
        " no sessions.",
        within=at_least(0),
    )
    drop_unknown_turns: bool = option(
        False,
        "Leave out questions and facts of own dialogues that name a turn which does not exist, with"
        " a count, instead of refusing the file.",
    )
    train_split: str = option("train", "Conversations to learn from.", _SPLITS)
    eval_split: str = option("validation", "Conversations to evaluate on.", _SPLITS)
    window: int = option(
        50,
        "Turns before a turn whose facts fill the bank; 0: all (Algorithm 1).",
        within=at_least(0),
    )
    link: str = option("last", "Evidence turn that a question belongs to.", ("last", "any"))
    synthetic_train: int = option(4, "Generated conversations to learn from.", within=GENERATED)
    synthetic_eval: int = option(1, "Generated conversations to evaluate on.", within=GENERATED)
    synthetic_sessions: int = option(4, "Sessions of a generated conversation.", within=GENERATED)
    synthetic_facts: int = option(4, "Facts told in a generated session.", within=GENERATED)
    synthetic_changes: float = option(
        0.2, "Share of told facts that change an earlier one.", within=between(0, 1)
    )
    synthetic_endings: float = option(
        0.12, "Share of told facts that end an earlier one.", within=between(0, 1)
    )
    synthetic_repeats: float = option(
        0.08, "Share of told facts that repeat an earlier one.", within=between(0, 1)
    )
    synthetic_relative_dates: float = option(
        0.5,
        'Share of generated dated facts that say "yesterday" instead of the date.',
        within=between(0, 1),
    )
    synthetic_cascades: float = option(
        0.0,
        "Share of told facts that depend on where a speaker lives, and change along with it.",
        within=between(0, 1),
    )
    synthetic_absences: int = option(
        0,
        "Questions of each generated conversation about what was never said; the right answer is"
        ' "not mentioned".',
        within=between(0, 1000),
    )
    curriculum: str = option(
        "",
        "Sessions of training dialogues that grow with the steps, as 8:40,16:40,32: the first 8 for"
        " 40 steps, the first 16 for 40 more, then 32. Empty: whole dialogues at once.",
    )
    wording: WordingOptions = WordingOptions()
    augment: AugmentOptions = AugmentOptions()


def check_shares(options: Any) -> None:
    """Raises UserError where more facts are to change, end, ... than are told."""
    names = [f"synthetic_{what}" for what in ("changes", "endings", "repeats", "cascades")]
    if sum(getattr(options, name) for name in names) > 1:
        given = [f"--{name}={getattr(options, name)}" for name in names]
        raise UserError(
            f"{', '.join(given[:-1])} and {given[-1]} are shares of the same facts, and together"
            " more than 1. Lower them."
        )


def data_sources(options: DataConfig) -> dict[str, DataConfig]:
    """Lists the data sets that the options name, each with options that name it alone.

    Raises:
      UserError: `--data` or `--data_path` makes no sense.
    """
    names = list(parse_mixture(options.data))
    paths = {names[0]: options.data_path}
    if len(names) > 1:
        paths = parse_paths(options.data_path, names)
    return {name: with_options(options, data=name, data_path=paths.get(name, "")) for name in names}


def find_dialogues(
    options: DataConfig, seed: int, folder: Path, again: bool = False
) -> dict[str, Path]:
    """Returns the files of dialogues that the options name; generated ones are written first.

    Args:
      options: where dialogues come from.
      seed: of generated ones.
      folder: of the run, where these are written.
      again: generate them even where the folder has some, left by a failed start.

    Returns:
      The file of each data set.
    """
    return {name: _find(only, seed, folder, again) for name, only in data_sources(options).items()}


def _find(options: DataConfig, seed: int, folder: Path, again: bool) -> Path:
    """Returns the file of the one data set that the options name."""
    if options.data == "own":
        if not options.data_path:
            raise UserError(
                "--data=own needs --data_path: a file of JSON lines as experiments/README.md shows"
                " it."
            )
        return one_file(options.data_path)
    if options.data == "locomo":
        return find_locomo(options.data_path or None)
    if options.data == "msc":
        return find(MSC, options.data_path or None).path
    path = folder / "dialogues.json"
    if is_main():
        if again or not path.exists():
            counts = {"train": options.synthetic_train, "validation": 0, "test": 0}
            counts[options.eval_split] = options.synthetic_eval
            write_synthetic(path, seed, **counts, **_generator_options(options))
    barrier("dialogues")
    return path


def _generator_options(options: DataConfig) -> dict[str, float]:
    return {
        "num_sessions": options.synthetic_sessions,
        "facts_per_session": options.synthetic_facts,
        "changes": options.synthetic_changes,
        "endings": options.synthetic_endings,
        "repeats": options.synthetic_repeats,
        "relative_dates": options.synthetic_relative_dates,
        "cascades": options.synthetic_cascades,
        "absences": options.synthetic_absences,
        **dataclasses.asdict(options.wording),
    }


def generated_dialogues(
    options: DataConfig, seed: int, count: int, name: str
) -> list[Conversation]:
    """Generates dialogues as the options say, of a stream of their own that `name` begins."""
    if not count:
        return []
    return generate_conversations(seed, count, split=name, **_generator_options(options))


def load_dialogues(
    options: DataConfig, seed: int, folder: Path, *, learn: bool = True
) -> tuple[list[Conversation], list[Conversation]]:
    """Loads training and evaluation conversations; generated ones are written to the run folder.

    Where dialogues note no facts, their turns stand for them. With `learn`, your own training
    conversations keep only questions that have an answer, as no reward teaches abstaining, and
    training conversations come with their altered copies. In a mixture each conversation names its
    data set.

    Raises:
      UserError: the data cannot be read, or, with `learn`, all training questions abstain.
    """
    train, evaluation = _load_all(options, find_dialogues(options, seed, folder), learn)
    if not learn:
        return train, evaluation
    if stages := parse_curriculum(options.curriculum):
        generated = "synthetic" in data_sources(options)
        count = options.synthetic_train if generated else 0
        lengths = [stage.sessions for stage in stages]
        train = in_stages(
            train,
            {
                sessions: generated_dialogues(
                    with_options(options, synthetic_sessions=sessions), seed, count, "train"
                )
                for sessions in lengths
            },
        )
    return with_copies(train, options.augment, seed), evaluation


def _load_all(
    options: DataConfig, paths: dict[str, Path], learn: bool
) -> tuple[list[Conversation], list[Conversation]]:
    if len(paths) == 1:
        return _load(options, *paths.values(), learn)
    train, evaluation = [], []
    for name, only in data_sources(options).items():
        for mixed, loaded in zip((train, evaluation), _load(only, paths[name], learn), strict=True):
            mixed += [dataclasses.replace(c, source=name) for c in loaded]
    _check_ids(train)
    _check_ids(evaluation)
    return train, evaluation


def _check_ids(conversations: list[Conversation]) -> None:
    seen: dict[str, str] = {}
    for conversation in conversations:
        if conversation.id in seen:
            raise UserError(
                f"The data sets {seen[conversation.id]} and {conversation.source} of --data both"
                f" have a conversation {conversation.id!r}. Rename it in one of the files."
            )
        seen[conversation.id] = conversation.source


def _load(
    options: DataConfig, path: Path, learn: bool
) -> tuple[list[Conversation], list[Conversation]]:
    """Loads the conversations of one data set to learn from and to evaluate on."""
    if options.data == "own":
        train, evaluation = _own_dialogues(options, path)
        return _answerable(options, train) if learn else train, evaluation
    if options.data == "msc":
        conversations = _in_tenths(load_msc(path))
    else:
        absences = options.data == "synthetic" and options.synthetic_absences > 0
        conversations = load_conversations(path, adversarial=absences)
    if unnoted := sum(not conversation.facts for conversation in conversations):
        warnings.warn(
            f"{path} notes no facts for {unnoted} of {len(conversations)} conversations, so their"
            " turns stand for them.",
            stacklevel=2,
        )
        conversations = list(map(turns_as_facts, conversations))
    return split(conversations, options.train_split), split(conversations, options.eval_split)


def _in_tenths(conversations: list[Conversation]) -> list[Conversation]:
    """Splits a data set without splits: of every ten, eight train, one validates, one tests."""
    splits = ("train",) * 8 + ("validation", "test")
    return [
        dataclasses.replace(c, split=splits[place % 10]) for place, c in enumerate(conversations)
    ]


def _own_dialogues(
    options: DataConfig, path: Path
) -> tuple[list[Conversation], list[Conversation]]:
    loaded = load_own_dialogues(path, options.session_gap, options.drop_unknown_turns)
    conversations = list(map(turns_as_facts, loaded))
    early = sum(not _asked_at_the_end(c, q) for c in conversations for q in c.questions)
    if early:
        warnings.warn(
            f'Questions of {options.data_path} that "after" asks amid the dialogue are left out:'
            f" {early}.",
            stacklevel=2,
        )
        conversations = [
            dataclasses.replace(
                c, questions=tuple(q for q in c.questions if _asked_at_the_end(c, q))
            )
            for c in conversations
        ]
    if not any(conversation.split for conversation in conversations):
        warnings.warn(
            f'No conversation of {options.data_path} has a "split", so all are learned from and'
            " evaluated on. Scores on what was learned from say little.",
            stacklevel=2,
        )
        return conversations, conversations
    return split(conversations, options.train_split), split(conversations, options.eval_split)


def _answerable(options: DataConfig, train: list[Conversation]) -> list[Conversation]:
    """Leaves out questions whose right answer is that the dialogue does not say."""
    kept = [
        dataclasses.replace(c, questions=tuple(q for q in c.questions if not q.abstain))
        for c in train
    ]
    left_out = sum(q.abstain for c in train for q in c.questions)
    if left_out and not any(conversation.questions for conversation in kept):
        raise UserError(
            f"{options.data_path}: there is nothing to learn from. All {left_out} questions of the"
            ' training conversations abstain ("abstain" or category 5): their right answer is that'
            " the dialogue does not say. Add questions with an answer, or choose another"
            " --train_split."
        )
    if left_out:
        warnings.warn(
            f"Questions of {options.data_path} whose right answer is that the dialogue does not say"
            f" are left out of training: {left_out}.",
            stacklevel=3,
        )
    return kept


def _asked_at_the_end(conversation: Conversation, question: Question) -> bool:
    return question.after in (None, len(conversation.turns))
