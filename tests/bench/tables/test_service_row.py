"""The memory service gives what the trained pair gives in its own row."""

import pytest

from memr1_jax.bench.tables.job import make_table
from memr1_jax.bench.tables.table_config import TableConfig
from memr1_jax.models.hf.sources import resolve_model


@pytest.mark.slow
def test_the_service_answers_as_its_agents_do(tmp_path):
    (export := tmp_path / "run" / "export").mkdir(parents=True)
    for agent in ("manager", "answer"):
        (export / agent).symlink_to(resolve_model("nano"))
    options = TableConfig(
        data="synthetic",
        synthetic_sessions=3,
        synthetic_facts=2,
        model="nano",
        agents=f"own={tmp_path / 'run'}",
        rows="memory_r1@own,service@own",
        answer_prompt="compact_nano",
        manager_prompt="compact_nano",
        facts="turns",
        answer_response_length=36,
        manager_response_length=36,
        memories=3,
        neighbours=3,
        memories_shown=3,
        features=512,
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
