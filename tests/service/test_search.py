"""Search over one block: the same as comparing with every memory."""

import re

import numpy as np
import pytest
from sqlalchemy.dialects import postgresql

from memr1_jax.service.queries import nearest_memories
from memr1_jax.service.scope import Scope
from memr1_jax.service.search import Shelf, Shelves


class Versions:
    """A database in which nothing changes."""

    def versions(self, scope):
        return {scope: 1}


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("most", [0, 1, 3, 50, 1000])
def test_the_best_are_those_of_a_plain_comparison(sparse, most):
    rng = np.random.default_rng(0)
    vectors = rng.integers(-2, 3, (200, 8)).astype(np.float32)  # with equal scores among them
    query = np.array([1, 0, 0, 2, 0, 0, 0, 0] if sparse else range(1, 9), np.float32)
    shelf = Shelf(Scope.of("ana"), 1, 1)
    states = {f"m{i}": {"n": i, "speaker": "ab"[i // 100]} for i in range(200)}
    shelf.put(dict(list(states.items())[:100]), vectors[:100])
    shelf.put(dict(list(states.items())[100:]), vectors[100:])
    for gone in (0, 57, 199):
        shelf.drop(f"m{gone}")
        shelf.drop(f"m{gone}")
    shelves = Shelves(Versions(), None)
    shelves._shelves[shelf.scope] = shelf

    def even(state):
        return state["n"] % 2 == 0

    found = shelves.best(shelf.scope, query, even, most)
    left = [n for n in range(200) if even({"n": n}) and n not in (0, 57, 199)]
    scores = sorted((float(vectors[n] @ query) for n in left), reverse=True)
    if most:
        assert [score for _, score in found] == scores[:most]
    assert len({item[0] for item, _ in found}) == len(found)
    speakers = [item[1]["speaker"] for item, _ in found]
    first = [n for n, name in enumerate(speakers) if speakers[:n].count(name) < 2]
    few = shelves.best(shelf.scope, query, even, most, each=2)
    assert [item[0] for item, _ in few] == [found[n][0][0] for n in first]
    for (memory, state, vector), score in found:
        assert memory == f"m{state['n']}" and score == vectors[state["n"]] @ query
        np.testing.assert_array_equal(vector, vectors[state["n"]])


@pytest.mark.parametrize("by_speaker", [False, True])
def test_a_search_in_the_database_carries_its_scope(by_speaker):
    scope, query = Scope.of("ana", run_id="r"), np.ones(8, np.float32)
    found = nearest_memories(scope, "e", query, 5, by_speaker, "Ben")
    compiled = found.compile(dialect=postgresql.dialect())
    (inside,) = re.findall(
        r"WHERE memories.scope = (.*?)(?: ORDER|\) AS)", " ".join(str(compiled).split())
    )
    told = dict(re.findall(r"([\w.]+) = %\((\w+)\)", inside))
    assert "FROM scopes WHERE scopes.user_id = " in inside and inside.count(" AND ") == 2
    assert {name: compiled.params[key] for name, key in told.items()} == {
        **{"scopes.user_id": "ana", "scopes.run_id": "r", "memories.speaker": "Ben"}
    }
