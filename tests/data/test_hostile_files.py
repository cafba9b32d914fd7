"""Every reader, on files that were changed at random: it reads or refuses them in a sentence."""

import warnings

import pytest
from fuzz.data_files import DATA
from fuzz.driver import Tally, run
from fuzz.mutate import DEEP
from fuzz.targets import all_targets

from memr1_jax.errors import UserError

ROUNDS = 150


@pytest.mark.parametrize("name", DATA)
def test_a_changed_file_is_read_or_refused_with_its_name(name):
    tally = Tally()
    with all_targets([name]) as (target,):
        run(target, tally, seed=0, start=0, count=ROUNDS)
    assert not tally.failed, "\n".join(tally.faults)


@pytest.mark.parametrize("name", [name for name in DATA if name != "persona_questions"])
def test_a_file_that_is_nested_too_deeply_is_refused_in_a_sentence(tmp_path, name):
    read, _ = DATA[name]
    path = tmp_path / "data.json"
    for text in (DEEP, '{"a":' * 100_000, "[" + DEEP, '{"a": ' + DEEP):
        path.write_text(text)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(UserError, match="data.json.*(nested too deeply|expected list)"):
                read(path)
