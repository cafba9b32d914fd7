"""Every target of the fuzz job on a few inputs, and what the job says of faults."""

import pytest
from fuzz.driver import ACCEPTED, FAULTS, Outcome, Tally, Target, Wrong, run, single, table
from fuzz.targets import DATA, FILES, all_targets

from memr1_jax.errors import UserError

QUICK = 12  # inputs of a target
TEXTS = ("scanner", "scanner_salvage", "edits", "answers", "words", "metrics")
PROMPTS = ("prompt_manager_compact", "prompt_manager_full", "prompt_answer", "prompt_judge")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "names",
    [
        (*DATA,),
        (*FILES, "replies"),
        pytest.param(TEXTS, marks=pytest.mark.slow),
        pytest.param(PROMPTS, marks=pytest.mark.slow),
        ("prompt_chats",),
        ("flags", "flag_files"),
    ],
    ids=("data", "files", "texts", "prompts", "chats", "flags"),
)
def test_a_few_inputs_of_every_target(names):
    with all_targets(names) as targets:
        assert [target.name for target in targets] == list(names)
        for target in targets:
            tally = Tally()
            run(target, tally, seed=1, start=0, count=QUICK)
            assert tally.inputs == QUICK
            assert not tally.failed, "\n".join(tally.faults)


def test_all_targets_are_tried_above():
    with all_targets() as targets:
        assert len(targets) == len(DATA) + len(FILES) + 14


def _raise(number: int) -> None:
    match number % 4:
        case 0:
            raise UserError("Line 3 is wrong. Mend it.")
        case 1:
            raise KeyError("x")
        case 2:
            raise Wrong("3 is no score")


def test_faults_are_counted_and_can_be_made_again():
    target = Target("numbers", lambda rng: rng.randrange(1000), single(_raise), batch=7)
    tally = Tally()
    run(target, tally, seed=3, start=5, count=200)
    assert tally.inputs == 200 and tally.failed and len(tally.faults) == 3
    assert all(tally.outcomes[o] > 20 for o in Outcome if o is not Outcome.FORGED)
    assert "numbers" in table({"numbers": tally}) and "200" in table({"numbers": tally})
    number = int(tally.faults[0].partition("number ")[2].partition(":")[0])
    again = Tally()
    run(target, again, seed=3, start=number, count=1)
    assert again.faults == tally.faults[:1]
    sound = Tally(outcomes={outcome: 0 for outcome in FAULTS} | {Outcome.ACCEPTED: 2})
    assert not sound.failed


def test_a_batch_that_fails_is_tried_one_by_one():
    def judge(cases):
        if 4 in cases:
            raise ValueError("four")
        return [ACCEPTED for _ in cases]

    numbers = iter(range(100))
    tally = Tally()
    run(Target("batch", lambda rng: next(numbers), judge, batch=10), tally, 0, 0, 20)
    assert tally.outcomes == {Outcome.ACCEPTED: 19, Outcome.TRACEBACK: 1}
