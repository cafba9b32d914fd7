"""A small file in LoCoMo's schema, every word of it ours, and the published benchmarks' files."""

import json
import os
import pathlib

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes records to a file and returns its path."""

    def _write(records, name="data.json"):
        path = tmp_path / name
        path.write_text(records if isinstance(records, str) else json.dumps(records))
        return path

    return _write


@pytest.fixture(scope="session")
def real_data():
    """Returns the path of a file of benchmark data, or skips where it is not there."""
    folder = os.environ.get("MEMR1_DATA") or pathlib.Path(__file__).parents[3] / "shared" / "data"

    def _path(*names):
        path = pathlib.Path(folder, *names)
        if not path.exists():
            pytest.skip(f"there is no {path}; set MEMR1_DATA to a folder of benchmark data")
        return path

    return _path


@pytest.fixture(scope="session")
def locomo_path(real_data):
    path = os.environ.get("MEMR1_LOCOMO")
    return pathlib.Path(path) if path else real_data("locomo", "locomo10.json")


@pytest.fixture(scope="session")
def locomo(locomo_path):
    from memr1_jax.data.locomo import load_conversations

    return load_conversations(locomo_path)


def _turn(dia_id: str, speaker: str, text: str, **extra) -> dict:
    return {"speaker": speaker, "dia_id": dia_id, "text": text, **extra}


def _question(text: str, category: int, evidence: list, **answer) -> dict:
    return {"question": text, "category": category, "evidence": evidence, **answer}


@pytest.fixture
def sample() -> dict:
    """Returns one record for each trap of LoCoMo; sessions 3 to 9 are dated but absent."""
    conversation = {"speaker_a": "Kim", "speaker_b": "Lou"}
    for number in range(1, 12):
        conversation[f"session_{number}_date_time"] = f"9:05 am on {number} June, 2023"
    conversation["session_10"] = [
        _turn("D10:1", "Lou", "My boat is finally dry."),
        _turn("D10:2", "Kim", "I repainted mine.", blip_caption="a red boat", img_url=["x"]),
    ]
    conversation["session_2"] = [
        _turn("D2:1", "Kim", "I grow beans now."),
        _turn("D2:2", "Lou", "Nice, I collect maps."),
    ]
    conversation["session_1"] = [
        _turn("D1:1", "Kim", "Hello there."),
        _turn("D1:2", "Lou", "I have three boats."),
        _turn("D1:3", "Kim", "And I have one."),
    ]
    conversation["session_11"] = [_turn("D11:1", "Lou", "Bye!")]
    return {
        "sample_id": "train-fixture",
        "conversation": conversation,
        "qa": [
            _question("How many boats has Lou?", 4, ["D1:2"], answer=3),
            _question("What do Kim and Lou own?", 1, ["D1:3; D1:2"], answer="boats"),
            _question("What does Kim grow?", 4, ["D:2:1"], answer="beans"),
            _question("When did Kim paint?", 2, ["D10:02", "D10:2"], answer="June 2023"),
            _question("Is Kim rich?", 3, [], answer="No"),
            _question("What does Lou collect?", 4, ["D"], answer="maps"),
            _question("What sank?", 4, ["D4:36"], answer="nothing"),
            _question("What does Lou grow?", 5, ["D2:1"], adversarial_answer="beans"),
            _question("What is dry?", 1, ["D10:1", "D1:2 D2:2"], answer="a boat"),
        ],
        "event_summary": {},
        "observation": {
            "session_10_observation": {
                "Kim": [["Kim repainted a boat.", "D10:2"]],
                "Lou": [["Lou's boat is dry.", "D10:1"]],
            },
            "observation": {
                "Lou": [["Lou has three boats.", "D1:2"]],
                "Kim": [["Kim and Lou both have boats.", ["D1:2", "D1:3"]]],
            },
            "session_2_observation": {
                "Kim": [["Kim grows beans.", "D2:1"], ["Lou likes maps.", "D2:2, D2:1"]],
                "Lou": [["Lou was never there.", "D7:1"]],
            },
        },
        "session_summary": {},
    }
