"""Records of options: their ranges, changes by flag, and what a mistake is told."""

import dataclasses
import math

import pytest

from memr1_jax.errors import UserError
from memr1_jax.options import (
    FINITE,
    above,
    at_least,
    between,
    check,
    current_names,
    entries,
    flag_values,
    flags_text,
    option,
    user_path,
    with_default,
    with_options,
)


@dataclasses.dataclass(frozen=True)
class InnerOptions:
    """Set the inner part. Much more could be said."""

    rate: float = option(0.1, "Rate.", within=above(0))
    cap: float | None = option(None, "Cap.", within=at_least(1))
    name: str = option("a", "Name.", ("a", "b"), flag="inner_name")
    internal: str = "no option"


@dataclasses.dataclass(frozen=True)
class OuterConfig:
    """Set the outer part."""

    steps: int = option(3, "Steps.", within=at_least(1), formerly="updates")
    share: float = option(0.5, "Share.", within=between(0, 1))
    inner: InnerOptions = InnerOptions()


@dataclasses.dataclass(frozen=True)
class OtherConfig(OuterConfig):
    """The same with other defaults."""

    steps: int = with_default(OuterConfig, "steps", 5)
    inner: InnerOptions = InnerOptions(rate=0.2)


def test_a_record_lists_its_options_and_those_that_it_holds():
    assert flag_values(OtherConfig()) == {
        "steps": 5,
        "share": 0.5,
        "rate": 0.2,
        "cap": None,
        "inner_name": "a",
    }
    assert flags_text(OuterConfig()) == (
        "--steps=3\n--share=0.5\n--rate=0.1\n--cap=None\n--inner_name=a\n"
    )
    groups = {entry.flag: entry.group for entry in entries(OtherConfig())}
    assert groups["steps"] == "Outer: Set the outer part"  # where it is declared
    assert groups["rate"].startswith("Inner: Set the inner part.")
    assert [entry.optional for entry in entries(InnerOptions())] == [False, True, False]
    assert current_names(OtherConfig(), {"updates": 7, "share": 1}) == {"steps": 7, "share": 1}


def test_options_change_by_flag_wherever_they_are():
    changed = with_options(OtherConfig(), share=1.0, cap=2.0, inner_name="b")
    assert changed == OtherConfig(share=1.0, inner=InnerOptions(0.2, 2.0, "b"))
    for unknown in ("nothing", "internal", "name", "inner"):
        with pytest.raises(TypeError, match=unknown):
            with_options(OtherConfig(), **{unknown: 1})


def test_ranges():
    for within, inside, outside, words in (
        (at_least(1), (1, 10**400), (0, 0.999), "at least 1"),
        (at_least(0), (0,), (-1e-300,), "0 or more"),
        (above(0), (5e-324,), (0, -0.0), "above 0"),
        (between(0, 1), (0, 1), (-1, 1.0001), "from 0 to 1"),
        (FINITE, (-1e308, 0), (), "a finite number"),
    ):
        assert str(within) == words
        assert all(value in within for value in inside)
        for value in (*outside, math.nan, math.inf, -math.inf):
            assert value not in within


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "--steps=0 must be at least 1."),
        ({"share": 1.5}, "--share=1.5 must be from 0 to 1."),
        ({"rate": math.nan}, "--rate=nan must be a finite number, above 0."),
        ({"cap": 0.5}, "--cap=0.5 must be at least 1, or none."),
        ({"inner_name": "c"}, "--inner_name=c must be one of 'a', 'b'."),
    ],
)
def test_one_check_walks_all_records(changes, message):
    check(OuterConfig())
    with pytest.raises(UserError) as error:
        check(with_options(OuterConfig(), **changes))
    assert str(error.value) == message


def test_a_home_that_there_is_not():
    with pytest.raises(UserError, match="~nosuchuser/x begins with the home of an unknown user"):
        user_path("~nosuchuser/x")
