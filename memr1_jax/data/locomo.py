"""The LoCoMo dialogues (arXiv 2402.17753): find the file, check it, read it, split it."""

import hashlib
import json
import os
import pathlib
import re
import warnings
from collections.abc import Iterable, Sequence

from memr1_jax.data.types import Conversation, Fact, GoldOperation, Question, Session, Turn
from memr1_jax.download import download
from memr1_jax.errors import UserError
from memr1_jax.text.events import Event

FILE_NAME = "locomo10.json"
URL = (
    "https://raw.githubusercontent.com/snap-research/LoCoMo/"
    "3eb6f2c585f5e1699204e3c3bdf7adc5c28cb376/data/locomo10.json"
)
OFFICIAL = "79fa87e90f04081343b8c8debecb80a9a6842b76a7aa537dc9fdf651ea698ff4"
VARIANTS = {
    OFFICIAL: "official",
    "13606bca884365a990b6514f5229a9d16d9a0cebfd23a503461cd11e447b77b7": "Structured-Memory-R1",
    "db827e3b2df093b49d1fef5d0a59b0faf75583ee86d087cebc44a8f038513ad7": "Memory-R2",
}
SPLITS = {
    "train": ("conv-26",),
    "validation": ("conv-30",),
    "test": tuple(f"conv-{number}" for number in (41, 42, 43, 44, 47, 48, 49, 50)),
}
ADVERSARIAL = 5

# Some published ids have an extra colon, leading zeros, or several ids in one string.
_TURN_ID = re.compile(r"D:?(\d+):(\d+)")
_SESSION = re.compile(r"session_(\d+)")


def find_locomo(data_path: str | os.PathLike | None = None, strict: bool = False) -> pathlib.Path:
    """Return the path of a checked LoCoMo file, downloading it once if no path is given.

    Args:
      data_path: the file, or a folder that holds it under its published name. Without it the
        cache folder is used (`MEMR1_CACHE`, else `~/.cache/memr1_jax`).
      strict: whether a file of unknown content is an error instead of a warning.

    Raises:
      UserError: nothing is there, the download fails, or `strict` refuses the file.
    """
    if data_path is not None:
        path = pathlib.Path(data_path).expanduser()
        path = path / FILE_NAME if path.is_dir() else path
        if not path.is_file():
            raise UserError(
                f"There is no file at {path}, where --data_path points. {_where_from()}"
            )
    else:
        cache = os.environ.get("MEMR1_CACHE") or "~/.cache/memr1_jax"
        path = pathlib.Path(cache).expanduser() / FILE_NAME
        if not path.is_file():
            download_locomo(path)
    variant, digest = identify(path)
    if variant == "unknown":
        message = (
            f"{path} is not a known edition of LoCoMo: its sha256 is {digest}, the official one "
            f"is {OFFICIAL}. Scores on it may not compare with published ones."
        )
        if strict:
            raise UserError(f"{message} {_where_from()}")
        warnings.warn(message, stacklevel=2)
    return path


def identify(path: str | os.PathLike) -> tuple[str, str]:
    """Return the edition of a LoCoMo file ("official", a variant's name, "unknown"), and sha256."""
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()
    return VARIANTS.get(digest, "unknown"), digest


def download_locomo(path: pathlib.Path) -> None:
    """Fetch the official file to `path`, which never holds a partial or wrong file.

    Raises:
      UserError: the network or the disk fails, or the content is not the official one.
    """
    download(URL, path, OFFICIAL, "LoCoMo", _where_from())


def _where_from() -> str:
    return (
        f"Get {FILE_NAME} (sha256 {OFFICIAL}), published by snap-research/LoCoMo on GitHub under "
        f"CC BY-NC 4.0, from {URL} and name it with --data_path."
    )


def load_conversations(
    path: str | os.PathLike, captions: bool = False, adversarial: bool = False
) -> list[Conversation]:
    """Read a file in LoCoMo's format.

    Args:
      path: the JSON file.
      captions: whether turns carry the caption of the image they share.
      adversarial: whether category 5 is kept; its questions have no answer, so theirs is empty.

    Raises:
      UserError: the file is not JSON or not of LoCoMo's schema; the message names the place.
    """
    try:
        with open(path, encoding="utf-8") as file:
            samples = json.load(file)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}. Check --data_path.") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}. Fetch or write it again.") from error
    root = _Node(samples, str(path)).of(list)
    return [_conversation(sample, captions, adversarial) for sample in root.items()]


def split(conversations: Iterable[Conversation], name: str) -> list[Conversation]:
    """Return the conversations of one split.

    LoCoMo's ten follow the Memory-R1 paper (`SPLITS`). Any other id belongs to the split it starts
    with, as in "train-7-0".

    Raises:
      UserError: the split has another name or is empty.
    """
    if name not in SPLITS:
        raise UserError(f"There is no split {name!r}; choose one of {', '.join(SPLITS)}.")
    conversations = list(conversations)
    chosen = [c for c in conversations if c.id in SPLITS[name] or c.id.split("-")[0] == name]
    if not chosen:
        ids = ", ".join(c.id for c in conversations)
        raise UserError(
            f"The data hold no conversation of the split {name!r}, only: {ids}. Ids that are not "
            "LoCoMo's own must start with train-, validation- or test-."
        )
    return chosen


def _conversation(sample: "_Node", captions: bool, adversarial: bool) -> Conversation:
    identity = sample["sample_id"].of(str).value
    sample = _Node(sample.value, f"{sample.place} ({identity})")
    record = sample["conversation"].of(dict)
    speakers = (record["speaker_a"].of(str).value, record["speaker_b"].of(str).value)
    # A file may date sessions that it does not hold, so the lists say which sessions exist.
    numbers = sorted(int(m[1]) for m in map(_SESSION.fullmatch, record.value) if m)
    sessions = tuple(_session(record, number, speakers, captions) for number in numbers)
    order: dict[str, int] = {}
    for turn in (turn for session in sessions for turn in session.turns):
        if turn.dia_id in order:
            raise UserError(f"{sample.place}: the turn id {turn.dia_id} stands there twice.")
        order[turn.dia_id] = len(order)

    irregular: list[str] = []
    questions = []
    for index, item in enumerate(sample["qa"].of(list).items()):
        category = item["category"].of(int).value
        if category not in range(1, ADVERSARIAL + 1):
            raise UserError(f"{item.place}: the category is {category}, not one of 1 to 5.")
        if category == ADVERSARIAL and not adversarial:
            continue
        text = item["question"].of(str).value
        answer = "" if category == ADVERSARIAL else str(item["answer"].of(str, int).value)
        evidence = item["evidence"].of(list).items()
        raw = [reference.of(str).value for reference in evidence]
        questions.append(Question(text, answer, category, _resolve(raw, order, irregular), index))

    facts = []
    if "observation" in sample.value:
        facts = _facts(sample["observation"].of(dict), speakers, order, irregular)
    operations = ()
    if "gold_operations" in sample.value:
        listed = sample["gold_operations"].of(list).items()
        operations = tuple(_operation(item, len(facts)) for item in listed)
    return Conversation(
        identity, speakers, sessions, tuple(questions), tuple(facts), operations, tuple(irregular)
    )


def _session(record: "_Node", number: int, speakers: tuple[str, str], captions: bool) -> Session:
    turns = []
    for item in record[f"session_{number}"].of(list).items():
        speaker, text, dia_id = (item[key].of(str).value for key in ("speaker", "text", "dia_id"))
        if speaker not in speakers:
            raise UserError(f"{item.place}: the speaker {speaker!r} is not one of {speakers}.")
        if not _TURN_ID.fullmatch(dia_id):
            raise UserError(f"{item.place}: the turn id {dia_id!r} does not read like D1:3.")
        caption = None
        if captions and "blip_caption" in item.value:
            caption = item["blip_caption"].of(str).value
        turns.append(Turn(speaker, text, dia_id, caption))
    return Session(number, record[f"session_{number}_date_time"].of(str).value, tuple(turns))


def _facts(
    observation: "_Node", speakers: tuple[str, str], order: dict[str, int], irregular: list[str]
) -> list[Fact]:
    """Facts in dialogue order; one without an existing source has no place in time and is left."""
    facts = []
    # The keys are not trusted for the session: one edition calls session_1_observation otherwise.
    for key in observation.value:
        by_speaker = observation[key].of(dict)
        for speaker in by_speaker.value:
            if speaker not in speakers:
                place = by_speaker.place
                raise UserError(f"{place}: the speaker {speaker!r} is not one of {speakers}.")
            for item in by_speaker[speaker].of(list).items():
                text, source = item.of(list)[0].of(str).value, item[1].of(str, list)
                raw = [source] if isinstance(source.value, str) else source.items()
                sources = _resolve([node.of(str).value for node in raw], order, irregular)
                if sources:
                    session = int(_TURN_ID.fullmatch(sources[-1])[1])
                    facts.append(Fact(speaker, text, session, sources))
    return sorted(facts, key=lambda fact: order[fact.sources[-1]])


def _operation(item: "_Node", number_of_facts: int) -> GoldOperation:
    name = item["event"].of(str).value
    if name not in Event.__members__:
        raise UserError(f"{item.place}: {name!r} is none of {', '.join(Event.__members__)}.")
    fact, text = item["fact"].of(int).value, item["text"].of(str).value
    replaces = item["replaces"].of(int, type(None)).value
    for position in (fact, 0 if replaces is None else replaces):
        if not 0 <= position < number_of_facts:
            raise UserError(f"{item.place}: there is no fact number {position}.")
    return GoldOperation(Event[name], fact, text, replaces)


def _resolve(raw: Sequence[str], order: dict[str, int], irregular: list[str]) -> tuple[str, ...]:
    """Existing turn ids that the strings name, in dialogue order; notes the irregular strings."""
    found = set()
    for reference in raw:
        if reference not in order:
            irregular.append(reference)
        named = (f"D{int(a)}:{int(b)}" for a, b in _TURN_ID.findall(reference))
        found.update(identity for identity in named if identity in order)
    return tuple(sorted(found, key=order.__getitem__))


class _Node:
    """A JSON value and its place in the file, so that every complaint can name the place."""

    def __init__(self, value: object, place: str):
        self.value, self.place = value, place

    def of(self, *types: type) -> "_Node":
        """Return this node after checking its type; true and false are not numbers."""
        if not isinstance(self.value, types) or isinstance(self.value, bool):
            expected = " or ".join(kind.__name__ for kind in types)
            found = type(self.value).__name__
            raise UserError(f"{self.place}: expected {expected} but found {found}.")
        return self

    def __getitem__(self, key: str | int) -> "_Node":
        self.of(dict if isinstance(key, str) else list)
        place = f"{self.place}, {key}"
        try:
            return _Node(self.value[key], place)
        except (KeyError, IndexError):
            raise UserError(f"{place}: this is missing.") from None

    def items(self) -> list["_Node"]:
        """Return the elements of a list."""
        return [self[index] for index in range(len(self.value))]
