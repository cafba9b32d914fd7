"""Checks that faults of a bank are counted as a reader of the dialogue would count them."""

from memr1_jax.data.types import Conversation, Fact, GoldOperation, Session, Turn
from memr1_jax.evals.bank_health import bank_health
from memr1_jax.evals.report.replay import Change, DialogueRecord, TurnRecord
from memr1_jax.text.events import Event

# Ann moves from Rome to Bonn, gets a cat, tells it again in other words, and gives it away; Bo
# plays chess.
TEXTS = ["Ann lives in Rome.", "Ann has a cat.", "Ann moved to Bonn.", "A cat is Ann's.", "No cat."]
OPERATIONS = (
    GoldOperation(Event.ADD, 0, TEXTS[0]),
    GoldOperation(Event.ADD, 1, TEXTS[1]),
    GoldOperation(Event.UPDATE, 2, TEXTS[2], replaces=0),
    GoldOperation(Event.NONE, 3),
    GoldOperation(Event.DELETE, 4, replaces=1),
    GoldOperation(Event.ADD, 5, "Bo plays chess."),
)


def conversation(last: int) -> Conversation:
    """Returns the dialogue up to Ann's turn number `last`, and Bo's one turn."""
    facts = [("Ann", text) for text in TEXTS[:last]] + [("Bo", "Bo plays chess.")]
    turns = tuple(Turn(who, text, f"D1:{n + 1}") for n, (who, text) in enumerate(facts))
    return Conversation(
        id="c",
        speakers=("Ann", "Bo"),
        sessions=(Session(1, "1:00 pm on 1 May, 2023", turns),),
        questions=(),
        facts=tuple(Fact(t.speaker, t.text, 1, (t.dia_id,)) for t in turns),
        operations=tuple(
            o if o.fact < 5 else GoldOperation(o.event, last, o.text)
            for o in OPERATIONS
            if o.fact < last or o.fact == 5
        ),
    )


def turn(number: int, *changes: Change, speaker: str = "Ann", valid: bool = True) -> TurnRecord:
    return TurnRecord(
        speaker=speaker,
        turn=f"D1:{number}",
        said_by=speaker,
        time="",
        text="",
        facts=(),
        changes=changes,
        size=0,
        valid=valid,
    )


def health(last: int, *turns: TurnRecord) -> dict[str, float]:
    record = DialogueRecord("c", ("Ann", "Bo"), 8, turns, ())
    found = bank_health([record], [conversation(last)])
    return {name: count for name, count in found.items() if count}


def add(slot: int, text: str) -> Change:
    return Change("added", slot, None, text)


def chess(number: int) -> TurnRecord:
    return turn(number, add(0, "Bo plays chess."), speaker="Bo")


def test_a_right_bank_has_nothing_to_complain_about():
    turns = (
        turn(1, add(0, TEXTS[0])),
        turn(2, add(1, TEXTS[1])),
        turn(3, Change("changed", 0, TEXTS[0], TEXTS[2])),
        turn(4),
        turn(5, Change("removed", 1, TEXTS[1], None)),
        chess(6),
    )
    assert health(5, *turns) == {"facts": 2, "memories": 2}


def test_always_adding_leaves_stale_and_repeated_memories():
    turns = [turn(n + 1, add(n, text)) for n, text in enumerate(TEXTS[:4])]
    found = health(4, *turns, chess(5))
    assert found == {"facts": 3, "memories": 5, "stale": 1, "duplicates": 1}


def test_what_is_lost_garbled_or_unreadable_is_counted():
    turns = (
        turn(1, add(0, TEXTS[0])),
        turn(2, Change("removed", 0, TEXTS[0], None), add(0, "Ann has a hat.")),
        turn(3, valid=False),
    )
    assert health(3, *turns, chess(4)) == {
        "facts": 3,
        "memories": 2,
        "missing": 2,  # the cat, and Bonn
        "unlike": 1,
        "wrong_deletes": 1,  # Rome still held when it was removed
        "invalid": 1,
    }


def test_the_same_memory_twice_is_one_duplicate():
    turns = (turn(1, add(0, TEXTS[0]), add(1, TEXTS[0])), chess(2))
    assert health(1, *turns) == {"facts": 2, "memories": 3, "duplicates": 1}
