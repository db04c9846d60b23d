"""Damaged checkpoints on disk: what a run does when it meets them."""

import contextlib
import gc

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import training
from dcgan_jax.runtime import checkpoint
from dcgan_jax.runtime.errors import UserError
from dcgan_jax.tasks.trained_run import restore
from tests.compare import assert_equal_states

# Orbax drops its other reads when one fails, and Python tells of each.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


@pytest.fixture(autouse=True)
def collected():
    """What a test leaves is told in that test, not in a later one."""
    yield
    gc.collect()


@pytest.fixture
def run(finished, finished_copy):
    """A finished run of six steps with checkpoints at 2, 4 and 6."""
    return finished_copy, finished[1]


def data_files(workdir, step):
    """The files that hold a checkpoint's arrays, the largest first."""
    files = [p for p in (workdir / 'checkpoints' / str(step) / 'state').rglob('*') if p.is_file()]
    return sorted(files, key=lambda p: -p.stat().st_size)


def flip_bit(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_restore_gives_what_was_saved(run):
    workdir, state = run
    restored = restore(workdir).state
    assert_equal_states(restored, state)


@pytest.mark.parametrize('damage', ['truncate', 'flip', 'remove'])
def test_a_damaged_checkpoint_falls_back_to_the_one_before_and_is_set_aside(
    run, config, damage, caplog
):
    workdir, state = run
    largest = data_files(workdir, 6)[0]
    if damage == 'truncate':
        truncate(largest)
    elif damage == 'flip':
        flip_bit(largest, largest.stat().st_size // 2)
    else:
        largest.unlink()
    restored = restore(workdir).state  # reading changes nothing
    assert int(restored.step) == 4
    assert (workdir / 'checkpoints' / '6').exists()

    again = training.train_and_evaluate(config, workdir)  # trains steps 5 and 6 once more
    assert_equal_states(again, state)
    assert (workdir / 'damaged_checkpoints' / '6').exists()
    restored = restore(workdir).state
    assert int(restored.step) == 6


def test_no_whole_checkpoint_is_an_error_never_a_new_start(run, config):
    workdir, _ = run
    for step in (2, 4, 6):
        truncate(data_files(workdir, step)[0])
    with pytest.raises(UserError, match=r'all checkpoints in .* are damaged \(steps \[2, 4, 6\]\)'):
        training.train_and_evaluate(config, workdir)


def test_a_half_written_checkpoint_is_no_checkpoint(run, config):
    workdir, _ = run
    half = workdir / 'checkpoints' / '8.orbax-checkpoint-tmp-123'
    (workdir / 'checkpoints' / '6').rename(half)
    (half / 'commit_success.txt').unlink(missing_ok=True)
    restored = restore(workdir).state
    assert int(restored.step) == 4


def test_another_architecture_is_refused_by_the_name_of_the_array(run):
    workdir, state = run
    wider = state.replace(
        generator=state.generator.replace(
            params={**state.generator.params, 'project': {'kernel': np.zeros((4, 99))}}
        )
    )
    with pytest.raises(
        UserError, match=r'checkpoints/6 .*generator/params/project/kernel is \(4, 32'
    ):
        checkpoint.restore_latest(workdir, wider)


def test_the_checksum_sees_every_flipped_bit():
    leaf = np.arange(37, dtype=np.float32)
    original = int(checkpoint._checksum(jax.numpy.asarray(leaf)))
    for word in range(leaf.size):
        for bit in range(32):
            flipped = leaf.copy()
            flipped.view(np.uint32)[word] ^= np.uint32(1) << np.uint32(bit)
            words = flipped.view(np.uint32).astype(object)
            expected = sum(w * (2 * i + 1) for i, w in enumerate(words)) % 2**32
            assert expected != original
    assert original == sum(int(w) * (2 * i + 1) for i, w in enumerate(leaf.view(np.uint32))) % 2**32


class State(flax.struct.PyTreeNode):
    step: jax.Array
    value: jax.Array


def test_the_first_complete_checkpoint_is_recorded_during_the_run(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, 2, {})
    marker = tmp_path / '.has_checkpoints'
    with contextlib.closing(checkpoints):
        for step in (1, 2):
            assert not marker.exists()
            checkpoints.save(State(jnp.int32(step), jnp.ones(3)))
        assert marker.exists()  # A killed process would not close them.
