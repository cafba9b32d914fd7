"""The memory service gives what the trained pair gives in its own row."""

import dataclasses

import pytest

from memr1_jax.bench.tables.job import make_table
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.models.hf.sources import resolve_model
from memr1_jax.studies.nano import NANO_SIZES


@pytest.mark.slow
def test_the_service_answers_as_its_agents_do(tmp_path):
    (export := tmp_path / "run" / "export").mkdir(parents=True)
    for agent in ("manager", "answer"):
        (export / agent).symlink_to(resolve_model("nano"))
    known = {field.name for field in dataclasses.fields(TableConfig)}
    known -= {"max_prompt_length"}  # of the whole prompt there, as long as the model has positions
    sizes = {name: size for name, size in NANO_SIZES.items() if name in known}
    options = TableConfig(
        data="synthetic",
        synthetic_sessions=3,
        synthetic_facts=2,
        model="nano",
        **sizes,
        agents=f"own={tmp_path / 'run'}",
        rows="memory_r1@own,service@own",
        facts="turns",
        output=str(tmp_path / "table"),
    )
    pair, service = make_table(options)
    assert len(pair.answered) > 3 and any(one.memories for one in pair.answered)
    assert [one.response for one in service.answered] == [one.response for one in pair.answered]
    assert service.overall == pair.overall
    for mine, theirs in zip(service.answered, pair.answered, strict=True):
        assert sorted(m["text"] for m in mine.memories) == sorted(
            m["text"] for m in theirs.memories
        )
        assert {s for m in mine.memories for s in m["sources"]} == {
            s for m in theirs.memories for s in m["sources"]
        }
    assert service.row.figures["counts"]["add"] == pair.row.figures["counts"]["add"] > 0
