import gc
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from memr1_jax.errors import UserError
from memr1_jax.run.checkpoints import Checkpoints


class _State(NamedTuple):
    params: dict
    optimizer: optax.OptState
    key: jax.Array
    step: jax.Array


def _state(seed=0, width=64):
    params = {
        "embedding": jax.random.normal(jax.random.key(seed), (32, width)),
        "head": {
            "half": jnp.arange(6, dtype=jnp.bfloat16),
            "bytes": jnp.arange(5, dtype=jnp.uint8),
        },
    }
    trained = {"embedding": params["embedding"]}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    state = optimizer.init(trained)
    _, state = optimizer.update(trained, state, trained)
    return _State(params, state, jax.random.key(seed + 7), jnp.int32(seed))


def _assert_same(actual, expected):
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype and left.shape == right.shape
        if jnp.issubdtype(left.dtype, jax.dtypes.prng_key):
            left, right = jax.random.key_data(left), jax.random.key_data(right)
        np.testing.assert_array_equal(left, right)


def _largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_round_trip_of_values_types_and_structure(tmp_path):
    state, meta = _state(), {"agent": "answer", "data": {"epoch": 1, "index": 7}, "none": None}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, meta)
    with Checkpoints(tmp_path) as checkpoints:
        for example in (state, jax.eval_shape(lambda: state), _state(seed=5)):
            restored, restored_meta = checkpoints.restore(example)
            _assert_same(restored, state)
            assert restored_meta == meta
    assert isinstance(restored.optimizer[1][0], optax.ScaleByAdamState)
    np.testing.assert_array_equal(
        jax.random.uniform(restored.key, (3,)), jax.random.uniform(state.key, (3,))
    )


def test_the_newest_are_kept(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.latest_step() is None
        for step in (1, 2, 3):
            checkpoints.save(step, _state(step), {"step": step})
        assert checkpoints.latest_step() == 3
        _assert_same(checkpoints.restore(_state(), 2)[0], _state(2))
        with pytest.raises(UserError, match="no checkpoint .*/1.* steps 2, 3"):
            checkpoints.restore(_state(), 1)


def _kept(folder):
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def test_the_best_is_kept_beside_the_newest(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.best_step() is None
        checkpoints.save(1, _state(1), {})
        assert checkpoints.best_step() is None  # no score, no candidate
        for step, score in ((2, 0.5), (3, 0.9), (4, float("nan")), (5, 0.9), (6, -1), (7, 0)):
            checkpoints.save(step, _state(step), {"step": step}, score=score)
        assert checkpoints.best_step() == 5 and checkpoints.latest_step() == 7
        assert _kept(tmp_path) == [5, 6, 7]
        restored, meta = checkpoints.restore(_state(), checkpoints.best_step())
        _assert_same(restored, _state(5))
        assert meta == {"step": 5}
        assert checkpoints.restore(_state())[1] == {"step": 7}
    # A process that resumes knows the scores of the one before it.
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.best_step() == 5
        checkpoints.save(8, _state(8), {})
        assert checkpoints.wait() is None and _kept(tmp_path) == [5, 8]
        checkpoints.save(9, _state(9), {}, score=1.5)
        assert checkpoints.best_step() == 9 and _kept(tmp_path) == [9]
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.best_step() == 9


def test_the_best_of_an_abandoned_run_goes_with_it(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in ((1, 0.1), (2, 0.2), (3, 0.9)):
            checkpoints.save(step, _state(step), {}, score=score)
        checkpoints.save(2, _state(9), {}, score=0.05)
        assert checkpoints.best_step() == 2 and _kept(tmp_path) == [2]
        checkpoints.save(3, _state(3), {}, score=0.01)
        checkpoints.save(4, _state(4), {}, score=0.02)
        assert checkpoints.best_step() == 2 and _kept(tmp_path) == [2, 3, 4]


def test_a_best_checkpoint_that_is_damaged_is_no_candidate(tmp_path):
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, score in ((1, 0.9), (2, 0.2), (3, 0.1)):
            checkpoints.save(step, _state(step), {}, score=score)
    (tmp_path / "1" / "meta" / "metadata").write_text("{")
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.best_step() == 2


def test_going_back_replaces_the_abandoned_steps(tmp_path):
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, _state(step), {})
        checkpoints.save(2, _state(9), {})
        assert checkpoints.latest_step() == 2
        _assert_same(checkpoints.restore(_state())[0], _state(9))
        _assert_same(checkpoints.restore(_state(), 1)[0], _state(1))


def test_the_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = {"a": jnp.zeros((1000, 1000)), "b": jnp.zeros((500, 1000))}
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in range(3):
            checkpoints.save(step, state, {})
            for _ in range(4):
                state = advance(state)
        for step in range(3):
            restored, _ = checkpoints.restore(state, step)
            assert np.unique(restored["a"]) == np.unique(restored["b"]) == 4 * step


def test_arrays_return_to_their_shardings(tmp_path):
    devices = jax.devices()
    mesh = jax.sharding.Mesh(np.array(devices), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    state = {"w": jnp.arange(8.0 * len(devices))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        example = {"w": jax.ShapeDtypeStruct(state["w"].shape, jnp.float32, sharding=sharding)}
        restored, _ = checkpoints.restore(example)
    assert restored["w"].sharding == sharding
    np.testing.assert_array_equal(restored["w"], state["w"])


def test_arrays_that_do_not_fit_are_named(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, _state(), {})
        checkpoints.save(2, _state(), {})
        # No silent return to step 1: an older checkpoint would not fit either.
        with pytest.raises(UserError) as error:
            checkpoints.restore(_state(width=48))
        assert f"{tmp_path}/2 does not fit" in str(error.value)
        assert "params/embedding is float32[32, 64] in the checkpoint" in str(error.value)
        assert "float32[32, 48] in this run" in str(error.value)
        with pytest.raises(UserError, match="step is int32.* in the checkpoint and unknown"):
            checkpoints.restore(_state()._asdict() | {"step": {}})
        typed = _state()._replace(step=jnp.float32(0))
        with pytest.raises(UserError, match=r"step is int32\[\] .* float32\[\]"):
            checkpoints.restore(typed)


def test_a_folder_without_checkpoints_is_named(tmp_path):
    with (
        Checkpoints(tmp_path / "new") as checkpoints,
        pytest.raises(UserError, match=f"no checkpoint in {tmp_path}/new"),
    ):
        checkpoints.restore(_state())
    with pytest.raises(UserError, match="no checkpoint folder .*/typo"):
        Checkpoints(tmp_path / "typo", read_only=True)
    assert not (tmp_path / "typo").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="/file cannot be created"):
        Checkpoints(tmp_path / "file")


def test_reserved_names_in_meta_are_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for name in ("format", "arrays", "score"):
            with pytest.raises(ValueError, match=name):
                checkpoints.save(1, _state(), {name: 2})


@pytest.fixture
def unfinished_reads():
    """Frees the reads that Orbax abandons when one fails, as Python reports them only then."""
    yield
    gc.collect()


_abandons_reads = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine:RuntimeWarning"
)


@_abandons_reads
@pytest.mark.usefixtures("unfinished_reads")
@pytest.mark.parametrize("damage", ["truncated", "deleted", "meta"])
def test_a_damaged_checkpoint_is_refused_or_passed_over(tmp_path, caplog, damage):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, _state(step), {"step": step})
    victim = _largest_file(tmp_path / "2")
    if damage == "truncated":
        os.truncate(victim, victim.stat().st_size // 2)
    elif damage == "deleted":
        victim.unlink()
    else:
        (tmp_path / "2" / "meta" / "metadata").write_text('{"format": 1, "arr')
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(UserError, match=f"{tmp_path}/2 cannot be read.*damaged"):
            checkpoints.restore(_state(), 2)
        restored, meta = checkpoints.restore(_state())
        assert meta == {"step": 1} and "Falling back to step 1" in caplog.text
        _assert_same(restored, _state(1))
        # Going on from there replaces the damaged one.
        checkpoints.save(2, _state(2), {"step": 2})
        _assert_same(checkpoints.restore(_state())[0], _state(2))


@_abandons_reads
@pytest.mark.usefixtures("unfinished_reads")
def test_no_damaged_file_changes_values_unnoticed(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, _state(step), {"step": step})
    refused = 0
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    assert len(files) > 5  # orbax reads some of them only when an array is asked for
    for path in files:
        whole = path.read_bytes()
        for length in {None, 0, len(whole) // 2, len(whole) - 1}:
            path.unlink() if length is None else path.write_bytes(whole[:length])
            with Checkpoints(tmp_path, read_only=True) as checkpoints:
                found, meta = checkpoints.restore(_state())
                _assert_same(found, _state(meta["step"]))
                try:  # Named, it is what it was or is refused, never the one before it.
                    _assert_same(checkpoints.restore(_state(), 2)[0], _state(2))
                    assert meta["step"] == 2
                except UserError as error:
                    assert f"{tmp_path}/2 cannot be read" in str(error)
                    assert meta["step"] == 1
                    refused += 1
            path.write_bytes(whole)
    assert refused > len(files)


@_abandons_reads
@pytest.mark.usefixtures("unfinished_reads")
def test_no_flipped_bit_changes_values_unnoticed(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, _state(step), {"step": step})
    draw = random.Random(0)
    files = [path for path in (tmp_path / "2").rglob("*") if path.is_file()]
    for path in files:
        whole = path.read_bytes()
        for place in draw.sample(range(len(whole)), min(3, len(whole))):
            changed = bytearray(whole)
            changed[place] ^= 1 << draw.randrange(8)
            path.write_bytes(changed)
            with Checkpoints(tmp_path, read_only=True) as checkpoints:
                found, meta = checkpoints.restore(_state())
            _assert_same(found, _state(meta["step"]))
            # At the top are also notes of orbax's own, on which no value depends.
            if path.parent != tmp_path / "2" or path.name == "checksums.json":
                assert meta == {"step": 1}, path
        path.write_bytes(whole)


def test_a_checkpoint_without_checksums_is_restored_with_a_warning(tmp_path, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, _state(1), {})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.restore(_state())
        assert "checksums" not in caplog.text
        (tmp_path / "1" / "checksums.json").unlink()
        _assert_same(checkpoints.restore(_state())[0], _state(1))
    assert f"{tmp_path}/1 was saved without checksums" in caplog.text


@_abandons_reads
@pytest.mark.usefixtures("unfinished_reads")
def test_a_damaged_checkpoint_without_another_is_refused(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, _state(), {})
        checkpoints.wait()
        os.truncate(_largest_file(tmp_path / "1"), 10)
        with pytest.raises(UserError, match=f"{tmp_path}/1 cannot be read"):
            checkpoints.restore(_state())


def test_foreign_checkpoints_are_refused(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path / "other", item_names=("state", "meta")) as other:
        arguments = {"state": ocp.args.StandardSave(_state()), "meta": ocp.args.JsonSave({"a": 1})}
        other.save(1, args=ocp.args.Composite(**arguments))
    (tmp_path / "plain" / "5").mkdir(parents=True)
    (tmp_path / "plain" / "5" / "model.bin").write_bytes(b"weights")
    for folder, message in (("other/1", "was not saved by"), ("plain/5", "cannot be read")):
        with (
            Checkpoints((tmp_path / folder).parent, read_only=True) as checkpoints,
            pytest.raises(UserError, match=f"{tmp_path}/{folder} {message}"),
        ):
            checkpoints.restore(_state())


@_abandons_reads
@pytest.mark.usefixtures("unfinished_reads")
def test_folders_that_only_look_like_a_checkpoint_are_passed_over(tmp_path, caplog):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, _state(3), {"step": 3})
    (tmp_path / "4").mkdir()  # as a machine leaves it that dies at the wrong moment
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "model.bin").write_bytes(b"weights")
    (tmp_path / "notes").mkdir()
    (tmp_path / "8.txt").write_text("a file")
    with Checkpoints(tmp_path) as checkpoints:
        for step in (4, 7):
            with pytest.raises(UserError, match=f"{tmp_path}/{step} cannot be read"):
                checkpoints.restore(_state(), step)
        with pytest.raises(UserError, match=f"no checkpoint {tmp_path}/8. "):
            checkpoints.restore(_state(), 8)
        restored, meta = checkpoints.restore(_state())
        assert meta == {"step": 3} and "Falling back to step 3" in caplog.text
        _assert_same(restored, _state(3))
        checkpoints.save(5, _state(5), {"step": 5}, score=1.0)
        assert checkpoints.best_step() == checkpoints.latest_step() == 5
        assert checkpoints.restore(_state())[1] == {"step": 5}
    assert (tmp_path / "notes").is_dir() and (tmp_path / "8.txt").is_file()


def test_another_format_is_refused(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        monkeypatch.setattr("memr1_jax.run.checkpoints.FORMAT", 99)
        checkpoints.save(1, _state(), {})
        monkeypatch.undo()
        with pytest.raises(UserError, match="has format 99.*reads format 1"):
            checkpoints.restore(_state())


def test_a_disk_that_refuses_is_told_and_the_last_one_stays(tmp_path):
    resource = pytest.importorskip("resource")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    big = {"w": jax.random.normal(jax.random.key(0), (1000, 1000))}
    try:
        with Checkpoints(tmp_path) as checkpoints:
            checkpoints.save(1, big, {})
            checkpoints.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
            with pytest.raises(UserError, match=f"could not be saved in {tmp_path}.*Make room"):
                checkpoints.save(2, big, {})
                checkpoints.wait()
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            assert checkpoints.latest_step() == 1
            _assert_same(checkpoints.restore(big)[0], big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)


_CHILD = """
import sys
import jax.numpy as jnp
from memr1_jax.run.checkpoints import Checkpoints

with Checkpoints(sys.argv[1]) as checkpoints:
    step = checkpoints.latest_step() or 0
    while True:
        step += 1
        state = {"a": jnp.full((500, 1000), step), "b": jnp.full((300, 1000), 0.5 * step)}
        checkpoints.save(step, state, {"step": step})
        print(step, flush=True)
"""


def test_a_process_killed_while_saving_leaves_a_good_checkpoint(tmp_path):
    moments = random.Random(0)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    reached = 0
    for _ in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        try:
            started = int(child.stdout.readline())  # one save has begun
            assert started == reached + 1
            time.sleep(moments.uniform(0.2, 0.8))  # tens of saves follow one another
        finally:
            child.send_signal(signal.SIGKILL)
            rest = child.communicate()[0]
        begun = int((rest.split() or [started])[-1])
        with Checkpoints(tmp_path, read_only=True) as checkpoints:
            example = {"a": jnp.zeros((500, 1000), jnp.int32), "b": jnp.zeros((300, 1000))}
            state, meta = checkpoints.restore(example)
            reached = checkpoints.latest_step()
        # A save begins only when the one before it is complete.
        assert begun - 1 <= reached <= begun + 1
        assert meta == {"step": reached}
        assert np.unique(state["a"]) == reached and np.unique(state["b"]) == 0.5 * reached


_MESHES = """
import sys
import jax
import numpy as np
from memr1_jax.parallel.mesh import make_mesh
from memr1_jax.parallel.rules import state_shardings
from memr1_jax.run.checkpoints import Checkpoints
from test_checkpoints import _model_state

assert jax.device_count() == 8
state = _model_state()


def placed(mesh, count):
    mesh = make_mesh(mesh, jax.devices()[:count])
    return jax.device_put(state, state_shardings(mesh, state))


def split(tree):
    return sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(tree))


with Checkpoints(sys.argv[1]) as checkpoints:
    saved = placed("fsdp:4", 4)
    assert split(saved) > 9
    checkpoints.save(1, saved, {})
    for mesh, count in (("data:2,tensor:2", 4), ("fsdp:8", 8), ("tensor:2", 2)):
        example = placed(mesh, count)
        assert split(example) > 9
        restored, _ = checkpoints.restore(example)
        for new, old, wanted in zip(*map(jax.tree.leaves, (restored, saved, example))):
            assert new.sharding == wanted.sharding
            if jax.dtypes.issubdtype(new.dtype, jax.dtypes.prng_key):
                new, old = jax.random.key_data(new), jax.random.key_data(old)
            assert np.asarray(new).tobytes() == np.asarray(old).tobytes()
    checkpoints.save(2, placed("data:2,fsdp:2,tensor:2", 8), {})
"""


def _model_state():
    """Returns a train state of a decoder, with odd numbers in the moments too."""
    from tiny_model import random_params

    from memr1_jax.rl.update import create_optimizer, create_state

    state = create_state(jax.device_put(random_params()), create_optimizer(1e-3), 3)
    rng = np.random.default_rng(1)

    def noise(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.asarray(rng.standard_normal(leaf.shape, np.float32).astype(leaf.dtype))

    return jax.tree.map(noise, state)


def test_a_checkpoint_of_one_mesh_is_restored_on_others(tmp_path):
    tests = Path(__file__).parent
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(map(str, [tests, tests.parent, *filter(None, sys.path)])),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
    }
    done = subprocess.run(
        [sys.executable, "-c", _MESHES, str(tmp_path)],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    expected = _model_state()
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        for step in (1, 2):  # each on this process's single device
            restored, _ = checkpoints.restore(expected, step)
            _assert_same(restored, expected)
            assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(restored)} == {1}


_PROCESSES = """
import os, pathlib, shutil, sys
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from memr1_jax.errors import UserError
from memr1_jax.run.checkpoints import Checkpoints

index, port, root = int(sys.argv[1]), sys.argv[2], pathlib.Path(sys.argv[3])
jax.distributed.initialize(f"localhost:{port}", 2, index)
sharding = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))


def state(step):
    whole = np.arange(1000.0, dtype=np.float32) + step
    return {"w": jax.make_array_from_callback(whole.shape, sharding, lambda i: whole[i])}


def check(found, step):
    for shard in found["w"].addressable_shards:
        np.testing.assert_array_equal(shard.data, np.arange(1000.0)[shard.index] + step)


shared = root / "shared"
with Checkpoints(shared, keep=2) as checkpoints:
    for step, score in enumerate((0.1, 0.9, 0.2, 0.3, 0.4)):
        checkpoints.save(step, state(step), {"step": step}, score=score)
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (4, 1)
    checkpoints.save(3, state(30), {"step": 30})
with Checkpoints(shared, keep=2) as checkpoints:
    assert sorted(p.name for p in shared.iterdir()) == ["1", "3"], list(shared.iterdir())
    found, meta = checkpoints.restore(state(0))
    assert meta == {"step": 30}
    check(found, 30)

# Damage that the second process alone runs into makes both fall back.
if index == 1:
    import orbax.checkpoint as ocp

    honest = ocp.StandardCheckpointHandler.restore

    def blind(self, folder, args):
        if folder.parent.name == "3":
            raise OSError("bad disk")
        return honest(self, folder, args=args)

    ocp.StandardCheckpointHandler.restore = blind
with Checkpoints(shared, read_only=True) as checkpoints:
    found, meta = checkpoints.restore(state(0))
    assert meta == {"step": 1}, meta
    check(found, 1)
    try:
        checkpoints.restore(state(0), 3)
        raise AssertionError("not refused")
    except UserError as error:
        assert "cannot be read" in str(error)

# A folder that only the first process can see.
try:
    Checkpoints(root / "own" if index == 0 else root / "other")
    raise AssertionError("not refused")
except UserError as error:
    assert "do not see the checkpoint folder" in str(error)
print("done", index)
"""


def test_two_processes_save_and_restore_together(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    environment.pop("XLA_FLAGS", None)
    children = [
        subprocess.Popen(
            [sys.executable, "-c", _PROCESSES, str(index), str(port), str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for index in (0, 1)
    ]
    try:
        said = [child.communicate(timeout=300)[0] for child in children]
    finally:
        for child in children:
            child.kill()
    assert [child.returncode for child in children] == [0, 0], "\n".join(said)[-6000:]
    assert not (tmp_path / "other").exists()
