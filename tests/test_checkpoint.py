"""Detection of damaged checkpoints."""

import contextlib
import gc
import shutil

import flax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dcgan_jax import training
from dcgan_jax.runtime import checkpoint, checkpoint_folder, checksums
from dcgan_jax.runtime.errors import TrainingError, UserError
from dcgan_jax.tasks.trained_run import restore
from tests.compare import assert_equal_states

# If one read fails, Orbax abandons its other reads, and Python warns about each.
pytestmark = pytest.mark.filterwarnings('ignore::pytest.PytestUnraisableExceptionWarning')


@pytest.fixture(autouse=True)
def collect_garbage():
    """Collect garbage, so that warnings appear in the test that causes them."""
    yield
    gc.collect()


@pytest.fixture
def run(finished, finished_copy):
    """A finished run of six steps with checkpoints at 2, 4 and 6."""
    return finished_copy, finished[1]


def data_files(workdir, step):
    """Return the files with a checkpoint's arrays, the largest first."""
    files = [p for p in (workdir / 'checkpoints' / str(step) / 'state').rglob('*') if p.is_file()]
    return sorted(files, key=lambda p: -p.stat().st_size)


def flip_bit(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_restore_returns_the_saved_state(run):
    workdir, state = run
    restored = restore(workdir).state
    assert_equal_states(restored, state)


def test_copied_checkpoint_with_another_name_is_rejected(run, config):
    """It would be the last one, and later checkpoints would be deleted."""
    folder = run[0] / 'checkpoints'
    shutil.copytree(folder / '2', folder / '20261129')
    config.num_steps = 8
    with pytest.raises(UserError, match='20261129 has the state of step 2'):
        training.train_and_evaluate(config, run[0])
    assert sorted(path.name for path in folder.iterdir()) == ['2', '20261129', '4', '6']


def test_checkpoints_that_vanish_while_they_are_read_are_not_damaged(run, monkeypatch):
    folder = run[0] / 'checkpoints'

    def vanish(path, abstract_state):
        shutil.rmtree(folder)
        folder.mkdir()
        raise checkpoint.DamagedError('gone')

    for step in ('2', '4'):
        shutil.rmtree(folder / step)
    monkeypatch.setattr(checkpoint, '_restore', vanish)
    with pytest.raises(UserError, match='replaced by a training run'):
        restore(run[0])


def test_checkpoint_that_is_replaced_while_it_is_read_is_not_damaged(run, monkeypatch, caplog):
    """The later checkpoint is restored if the earlier one is deleted while it is read."""
    workdir, state = run
    folder, later, restore_arrays = workdir / 'checkpoints', workdir / 'later', checkpoint._restore
    (folder / '6').rename(later)

    def rotate(path, abstract_state):
        if path.name == '4':
            later.rename(folder / '6')
            shutil.rmtree(folder / '4' / 'state')
        return restore_arrays(path, abstract_state)

    monkeypatch.setattr(checkpoint, '_restore', rotate)
    restored, damaged = checkpoint.restore_latest(workdir, state)
    assert int(restored.step) == 6
    assert damaged == []
    assert 'damaged' not in caplog.text


def test_metadata_is_read_from_the_later_checkpoint_if_one_is_deleted(run, monkeypatch, caplog):
    folder, later, read = run[0] / 'checkpoints', run[0] / 'later', checkpoint_folder.read_metadata
    (folder / '6').rename(later)

    def rotate(path):
        if path.name == '4':
            later.rename(folder / '6')
            shutil.rmtree(folder / '4')
        return read(path)

    monkeypatch.setattr(checkpoint_folder, 'read_metadata', rotate)
    assert checkpoint_folder.latest_metadata(run[0])['step'] == 6
    assert not caplog.text


@pytest.mark.parametrize('damage', ['truncate', 'flip', 'remove'])
def test_damaged_checkpoint_is_moved_and_the_previous_one_is_used(run, config, damage, caplog):
    workdir, state = run
    largest = data_files(workdir, 6)[0]
    if damage == 'truncate':
        truncate(largest)
    elif damage == 'flip':
        flip_bit(largest, largest.stat().st_size // 2)
    else:
        largest.unlink()
    restored = restore(workdir).state  # Reading does not change files.
    assert int(restored.step) == 4
    assert (workdir / 'checkpoints' / '6').exists()

    again = training.train_and_evaluate(config, workdir)  # Repeats steps 5 and 6.
    assert_equal_states(again, state)
    assert (workdir / 'damaged_checkpoints' / '6').exists()
    restored = restore(workdir).state
    assert int(restored.step) == 6


def test_run_with_damaged_checkpoints_only_is_not_restarted(run, config):
    workdir, _ = run
    for step in (2, 4, 6):
        truncate(data_files(workdir, step)[0])
    with pytest.raises(UserError, match=r'all checkpoints in .* are damaged \(steps \[2, 4, 6\]\)'):
        training.train_and_evaluate(config, workdir)


def test_error_about_a_damaged_best_checkpoint_recommends_the_latest(run):
    workdir, state = run
    for step in (2, 4, 6):
        truncate(data_files(workdir, step)[0])
    (workdir / 'checkpoints').rename(workdir / 'best_checkpoint')
    with pytest.raises(UserError, match='use --checkpoint=latest'):
        checkpoint.restore_latest(workdir, state, 'best_checkpoint')


@pytest.mark.parametrize('error', [FileNotFoundError(2, 'No such file'), ValueError('NOT_FOUND')])
def test_removed_folder_is_named_if_a_save_fails(run, monkeypatch, error):
    def save(*arguments, **options):
        shutil.rmtree(workdir / 'checkpoints')
        raise error

    workdir, state = run
    with contextlib.closing(checkpoint.Checkpoints(workdir, 3, {})) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, 'save', save)
        with pytest.raises(TrainingError, match='was removed or renamed during the run; restore'):
            checkpoints.save(state.replace(step=jnp.int32(8)))


def test_incomplete_checkpoint_is_ignored(run, config):
    workdir, _ = run
    half = workdir / 'checkpoints' / '8.orbax-checkpoint-tmp-123'
    (workdir / 'checkpoints' / '6').rename(half)
    (half / 'commit_success.txt').unlink(missing_ok=True)
    restored = restore(workdir).state
    assert int(restored.step) == 4


def test_another_architecture_is_rejected_with_the_array_name(run):
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


def test_checksum_detects_every_flipped_bit():
    leaf = np.arange(37, dtype=np.float32)
    original = int(checksums.checksum(jax.numpy.asarray(leaf)))
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


def test_first_complete_checkpoint_is_recorded_during_the_run(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path, 2, {})
    marker = tmp_path / 'has_checkpoints'
    with contextlib.closing(checkpoints):
        for step in (1, 2):
            assert not marker.exists()
            checkpoints.save(State(jnp.int32(step), jnp.ones(3)))
        assert marker.exists()  # A killed process would not close the manager.
