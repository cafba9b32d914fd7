"""Processes that are killed while they write: what was acknowledged is there, the rest is not."""

from memr1_jax.service.kills import kill_writers


def test_writers_that_are_killed_lose_nothing(tmp_path):
    left = kill_writers(tmp_path / "m.db", 4)
    assert left.acknowledged >= 4
    assert (left.lost, left.half, left.integrity) == (0, 0, "ok")
