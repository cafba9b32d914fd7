"""Finds the turns that a reference names: one id, several in one string, or a range of them."""

import re
from collections.abc import Iterable, Mapping

# Some published ids have an extra colon, leading zeros, or several ids in one string.
_ID = r"D:?([0-9]{1,9}):([0-9]{1,9})"
_TURN_ID = re.compile(_ID)
_RANGE = re.compile(
    rf"{_ID}\s*(?:[-\u2010-\u2015\u2212]|\bto\b|\bthrough\b)\s*(?:D:?([0-9]{{1,9}}):)?([0-9]{{1,9}})"
)


def is_turn_id(text: str) -> bool:
    """Tells whether a text reads like D1:3."""
    return _TURN_ID.fullmatch(text) is not None


def resolve(reference: str, order: Mapping[str, int]) -> tuple[set[str], bool]:
    """Finds the turns that one string names.

    Args:
      reference: as the file has it: "D1:3", "D:1:03", "D1:3; D1:5", "D1:3-D1:6", "D1:3-6".
      order: the position of every turn by its id.

    Returns:
      Ids of existing turns, and whether the string names nothing else.
    """
    if reference in order:
        return {reference}, True
    places = {_place(turn): turn for turn in order if is_turn_id(turn)}
    found: set[str] = set()
    whole = True
    for match in _RANGE.finditer(reference):
        session, first, other, last = match.groups()
        ends = sorted([(int(session), int(first)), (int(other or session), int(last))])
        named = [turn for place, turn in places.items() if ends[0] <= place <= ends[1]]
        whole = whole and all(end in places for end in ends)
        found.update(named)
    rest = _RANGE.sub(" ", reference)
    for match in _TURN_ID.finditer(rest):
        turn = places.get((int(match[1]), int(match[2])))
        whole = whole and turn is not None
        found |= {turn} - {None}
    return found, whole and bool(found)


def resolve_all(
    references: Iterable[str], order: Mapping[str, int]
) -> tuple[tuple[str, ...], list[str]]:
    """Finds the turns that several strings name.

    Returns:
      Their ids in dialogue order, and the strings that name something missing.
    """
    found: set[str] = set()
    lost = []
    for reference in references:
        turns, whole = resolve(reference, order)
        found |= turns
        if not whole:
            lost.append(reference)
    return tuple(sorted(found, key=order.__getitem__)), lost


def _place(turn: str) -> tuple[int, int]:
    match = _TURN_ID.fullmatch(turn)
    return int(match[1]), int(match[2])
