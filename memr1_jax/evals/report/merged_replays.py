"""Replays of the same dialogues before and after training, merged turn by turn for the page."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

OUTPUT_SHOWN = 2_000  # characters of a response; all of it is in the replay's file
_BUDGET = 2_500_000  # characters of turns on a page
_GRAVITY = ("removed", "changed", "added")


def merge_replays(replays: Mapping[str, Sequence[dict]], budget: int = _BUDGET) -> list[dict]:
    """Merges replays, see `replay.read_replay`, into dialogues with a version for each of them.

    Args:
      replays: by evaluation, in the order of the columns.
      budget: characters that all turns may take up; the last turns of each dialogue are left out
        where they would take more.

    Returns:
      Dialogues with `id`, `speakers`, `capacity`, `names` of the versions, `turns`, `left_out`,
      their number, `banks` at the end and the questions that no shown turn decided, `others`.
    """
    ids = dict.fromkeys(dialogue["id"] for replay in replays.values() for dialogue in replay)
    dialogues = []
    for identity in ids:
        versions = {
            name: dialogue
            for name, replay in replays.items()
            for dialogue in replay
            if dialogue["id"] == identity
        }
        dialogues.append(_merge(versions, budget // len(ids)))
    return dialogues


def _merge(versions: Mapping[str, dict], budget: int) -> dict[str, Any]:
    first = next(iter(versions.values()))
    keys = [_place(turn) for turn in first["turns"]]
    # Other turns would mean other data, which cannot be laid side by side.
    versions = {
        name: dialogue
        for name, dialogue in versions.items()
        if [_place(turn) for turn in dialogue["turns"]] == keys
    }
    questions = {
        name: {question["index"]: question for question in dialogue["questions"]}
        for name, dialogue in versions.items()
    }
    turns, used = [], 0
    for moments in zip(*(dialogue["turns"] for dialogue in versions.values()), strict=True):
        used += len(json.dumps(moments, ensure_ascii=False))
        if turns and used > budget:
            break
        turns.append(_turn(dict(zip(versions, moments, strict=True)), first, questions))
    decided = {question["index"] for turn in turns for question in turn["questions"]}
    return {
        "id": first["id"],
        "speakers": first["speakers"],
        "capacity": first["capacity"],
        "names": list(versions),
        "turns": turns,
        "left_out": len(keys) - len(turns),
        "banks": [
            {
                "speaker": speaker,
                "versions": {
                    name: _final_bank(dialogue["turns"], speaker)
                    for name, dialogue in versions.items()
                },
            }
            for speaker in first["speakers"]
        ],
        "others": [
            _asked(question["index"], questions)
            for question in first["questions"]
            if question["index"] not in decided
        ],
    }


def _place(turn):
    return turn["turn"], turn["speaker"], turn["facts"]


def _turn(moments: Mapping[str, dict], dialogue: dict, questions) -> dict[str, Any]:
    shared = next(iter(moments.values()))
    last = list(moments.values())[-1]
    kinds = {change["kind"] for change in last["changes"]}
    asked = [_asked(index, questions) for index in shared["questions"]]
    verdicts = [question["answers"][-1]["right"] for question in asked]
    return {
        "bank": dialogue["speakers"].index(shared["speaker"]),
        **{key: shared[key] for key in ("speaker", "turn", "said_by", "time", "text", "facts")},
        "versions": [_version(name, moment) for name, moment in moments.items()],
        "questions": asked,
        "changed": any(moment["changes"] for moment in moments.values()),
        "kind": next((kind for kind in _GRAVITY if kind in kinds), "same"),
        "verdict": "wrong" if False in verdicts else "right" if True in verdicts else "",
    }


def _version(name, moment):
    output = moment["output"]
    cut = max(0, len(output or "") - OUTPUT_SHOWN)
    # Replays of earlier runs do not say what was salvaged.
    return (
        {"salvaged": False}
        | moment
        | {"name": name, "output": output and output[:OUTPUT_SHOWN], "cut": cut}
    )


def _asked(index, questions):
    """Returns a question with the answer of every version."""
    some = next(found[index] for found in questions.values() if index in found)
    answers = [
        {"name": name, "answer": found[index]["answer"], "right": found[index]["right"]}
        for name, found in questions.items()
        if index in found
    ]
    kept = ("index", "question", "gold", "category", "evidence")
    return {key: some[key] for key in kept} | {"answers": answers}


def _final_bank(turns, speaker):
    bank = {}
    for turn in turns:
        if turn["speaker"] == speaker:
            for change in turn["changes"]:
                if change["after"] is None:
                    bank.pop(change["slot"], None)
                else:
                    bank[change["slot"]] = change["after"]
    return [text for _, text in sorted(bank.items())]
