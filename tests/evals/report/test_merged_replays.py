"""Replays merged turn by turn."""

from memr1_jax.evals.report.merged_replays import OUTPUT_SHOWN, merge_replays


def _change(kind, slot, before, after):
    return {"kind": kind, "slot": slot, "before": before, "after": after}


def _turn(name, changes=(), questions=(), output="{}", speaker="Ana"):
    return {
        **{"speaker": speaker, "turn": name, "said_by": "Ana", "time": "1 May", "text": "Hello."},
        **{"facts": ["A fact."], "shown": [], "output": output, "stopped": True, "valid": True},
        **{"operations": [], "none": 0, "skipped": 0, "dropped": 0, "size": 1},
        **{"changes": list(changes), "questions": list(questions)},
    }


def _dialogue(turns, answers, identity="c1"):
    questions = [
        {
            **{"index": index, "question": f"Question {index}?", "gold": "x", "category": 4},
            **{"evidence": [], "answer": answer, "response": answer, "right": right},
        }
        for index, (answer, right) in enumerate(answers)
    ]
    speakers = ["Ana", "Ben"]
    return {
        **{"id": identity, "speakers": speakers, "capacity": 8},
        **{"turns": turns, "questions": questions},
    }


def test_versions_stand_beside_each_other():
    before = [_turn("D1:1"), _turn("D1:2", questions=[1])]
    after = [
        _turn("D1:1", [_change("added", 0, None, "a"), _change("added", 1, None, "b")]),
        _turn(
            "D1:2",
            [_change("changed", 0, "a", "A"), _change("removed", 1, "b", None)],
            questions=[1],
            output="x" * (OUTPUT_SHOWN + 5),
        ),
    ]
    answers = [("x", True), ("y", False)], [("z", False), ("x", True)]
    (found,) = merge_replays(
        {"before": [_dialogue(before, answers[0])], "after": [_dialogue(after, answers[1])]}
    )
    assert (found["names"], found["left_out"]) == (["before", "after"], 0)
    first, second = found["turns"]
    assert [version["name"] for version in first["versions"]] == ["before", "after"]
    assert (first["changed"], first["kind"], first["verdict"]) == (True, "added", "")
    assert (second["kind"], second["verdict"]) == ("removed", "right")
    assert second["versions"][1]["cut"] == 5
    assert len(second["versions"][1]["output"]) == OUTPUT_SHOWN
    (asked,) = second["questions"]
    assert [(a["name"], a["answer"], a["right"]) for a in asked["answers"]] == [
        ("before", "y", False),
        ("after", "x", True),
    ]
    assert [question["index"] for question in found["others"]] == [0]
    ana, ben = found["banks"]
    assert ana == {"speaker": "Ana", "versions": {"before": [], "after": ["A"]}}
    assert ben["versions"] == {"before": [], "after": []}


def test_what_is_too_much_is_left_out_at_the_end():
    turns = [_turn(f"D1:{i}", output="x" * 1000) for i in range(10)]
    replays = {
        "before": [_dialogue(turns, [], name) for name in ("c1", "c2")],
    }
    both = merge_replays(replays, budget=10_000)
    assert [(d["id"], len(d["turns"]), d["left_out"]) for d in both] == [("c1", 3, 7), ("c2", 3, 7)]
    assert len(merge_replays(replays, budget=0)[0]["turns"]) == 1


def test_other_data_is_not_laid_beside():
    replays = {
        "before": [_dialogue([_turn("D1:1")], [])],
        "after": [_dialogue([_turn("D1:2")], [])],
    }
    (found,) = merge_replays(replays)
    assert found["names"] == ["before"]
