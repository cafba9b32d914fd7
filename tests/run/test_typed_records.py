"""Records read back from JSON have the types that they say."""

import dataclasses
import json

import pytest

from memr1_jax.run.typed_records import typed


@dataclasses.dataclass(frozen=True)
class _Inner:
    word: str
    size: int | None = None


@dataclasses.dataclass(frozen=True)
class _Record:
    name: str
    pair: tuple[str, int]
    parts: tuple[_Inner, ...]
    scores: dict[str, float]
    right: bool = False


WHOLE = _Record("a", ("b", 3), (_Inner("c"), _Inner("d", 4)), {"f1": 0.5}, True)


def test_what_was_written_is_read_back():
    written = json.loads(json.dumps(dataclasses.asdict(WHOLE)))
    assert typed(_Record, written) == WHOLE
    del written["right"]
    assert typed(_Record, written) == dataclasses.replace(WHOLE, right=False)
    assert typed(dict[str, float], {"x": 1})["x"] == 1.0
    assert type(typed(dict[str, int | float], {"x": 1})["x"]) is int


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "it.name is 3, not of the type str"),
        ({"pair": ["b"]}, "it.pair has not 2 elements"),
        ({"pair": "b"}, "it.pair is 'b', not of the type list"),
        ({"parts": [{"word": "c", "size": "4"}]}, "it.parts[].size is '4'"),
        ({"parts": [{"size": 4}]}, "it.parts[] has no field word"),
        ({"scores": {"f1": True}}, "it.scores.f1 is True"),
        ({"scores": []}, "it.scores is []"),
        ({"right": 1}, "it.right is 1"),
        ({"more": 1}, "it has an unknown field more"),
    ],
)
def test_what_was_changed_is_refused_by_its_place(change, message):
    written = json.loads(json.dumps(dataclasses.asdict(WHOLE))) | change
    with pytest.raises(ValueError) as error:
        typed(_Record, written)
    assert message in str(error.value)
    with pytest.raises(ValueError):
        typed(_Record, list(written))
