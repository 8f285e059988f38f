"""The array cache returns the right arrays or computes them again; damage is never loaded."""

import hashlib
import logging
import pickle
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from tiewise.files import remove_temporaries
from tiewise.tokens.array_cache import load_or_compute, read_arrays, write_arrays

ARRAYS = {
    "values": np.arange(50, dtype=np.int32),
    "empty": np.empty(0, dtype=np.int64),
    "missing": np.array([True, False, True]),
}


class Compute:
    """Returns the arrays and counts the calls."""

    def __init__(self, arrays=ARRAYS):
        self.arrays = arrays
        self.n_calls = 0

    def __call__(self):
        self.n_calls += 1
        return self.arrays


def assert_same(found, expected=ARRAYS):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def entry_of(cache_dir):
    (path,) = Path(cache_dir).rglob("*.arrays")
    return path


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.sampled_from([np.int8, np.int32, np.int64, np.bool_, np.float64]).flatmap(
            lambda dtype: arrays_of.arrays(
                dtype, arrays_of.array_shapes(min_dims=0, min_side=0, max_side=5)
            )
        ),
        max_size=4,
    )
)
def test_written_arrays_read_back(tmp_path_factory, arrays):
    """Names, types, shapes and bytes are kept, and the arrays are read-only and aligned."""
    path = tmp_path_factory.mktemp("entry") / "a.arrays"
    write_arrays(path, "key", arrays)
    found = read_arrays(path, "key")
    assert_same(found, arrays)
    assert all(array.flags.aligned and not array.flags.writeable for array in found.values())


def test_second_call_computes_nothing(tmp_path):
    """The key alone decides; the function that would compute may differ."""
    first, second, other = Compute(), Compute(), Compute()
    assert_same(load_or_compute(tmp_path, "key", first))
    assert_same(load_or_compute(str(tmp_path), "key", second))
    assert_same(load_or_compute(tmp_path, "another key", other))
    assert (first.n_calls, second.n_calls, other.n_calls) == (1, 0, 1)


def test_no_cache_always_computes():
    """Without a folder each call computes."""
    compute = Compute()
    for _ in range(2):
        assert load_or_compute(None, "key", compute) is ARRAYS
    assert compute.n_calls == 2


def test_entry_is_one_file(tmp_path):
    """No pickle, metadata or function code of joblib is written."""
    load_or_compute(tmp_path, "key", Compute())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [entry_of(tmp_path)]


@st.composite
def damages(draw):
    """Draw a change of a file's bytes."""
    kind = draw(st.sampled_from(["flip", "truncate", "zero", "append", "empty"]))
    place = draw(st.floats(0, 1, exclude_max=True))
    bit = draw(st.integers(0, 7))

    def damage(data):
        position = int(place * len(data))
        if kind == "flip":
            return data[:position] + bytes([data[position] ^ (1 << bit)]) + data[position + 1 :]
        if kind == "zero":
            return data[:position] + bytes(len(data) - position)
        return {"truncate": data[:position], "append": data + b"x", "empty": b""}[kind]

    return damage


@given(damages())
def test_damage_is_computed_again(tmp_path_factory, damage):
    """Any change of the bytes leads to the right arrays and to an intact entry."""
    cache_dir = tmp_path_factory.mktemp("cache")
    load_or_compute(cache_dir, "key", Compute())
    path = entry_of(cache_dir)
    path.write_bytes(damage(path.read_bytes()))
    assert_same(load_or_compute(cache_dir, "key", Compute()))
    unused = Compute()
    assert_same(load_or_compute(cache_dir, "key", unused))
    assert unused.n_calls == 0


def test_damage_is_logged(tmp_path, caplog):
    """The warning names the damaged file."""
    load_or_compute(tmp_path, "key", Compute())
    path = entry_of(tmp_path)
    path.write_bytes(b"nonsense")
    with caplog.at_level(logging.WARNING):
        load_or_compute(tmp_path, "key", Compute())
    (record,) = caplog.records
    assert f"{path} is damaged (its checksum is wrong)" in record.getMessage()


def test_foreign_entry_is_refused(tmp_path):
    """An intact entry under the name of another key is not used."""
    others = {**ARRAYS, "values": np.arange(50, dtype=np.int32) + 1}
    load_or_compute(tmp_path, "key", Compute())
    load_or_compute(tmp_path / "other", "another key", Compute(others))
    shutil.copy(entry_of(tmp_path / "other"), entry_of(tmp_path / "joblib"))
    assert_same(load_or_compute(tmp_path, "key", Compute()))


def test_pickles_are_never_loaded(tmp_path):
    """Neither objects in an entry with a right checksum, nor files under joblib's own names."""

    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    load_or_compute(tmp_path, "key", Compute())
    path = entry_of(tmp_path)
    content = path.read_bytes()[32:].replace(b"<i4", b"|O8", 1) + pickle.dumps(Bomb())
    path.write_bytes(hashlib.sha256(content).digest() + content)
    for name in ("output.pkl", "metadata.json", "func_code.py"):
        (path.parent / name).write_bytes(pickle.dumps(Bomb()))
    compute = Compute()
    assert_same(load_or_compute(tmp_path, "key", compute))
    assert compute.n_calls == 1
    assert not (tmp_path / "executed").exists()


def test_full_disk_keeps_the_result(tmp_path, caplog):
    """When nothing can be written the arrays are returned, and the log says why."""
    big = {"values": np.arange(100_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with caplog.at_level(logging.WARNING):
            assert_same(load_or_compute(tmp_path, "key", Compute(big)), big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Result not cached" in caplog.text
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    compute = Compute(big)
    load_or_compute(tmp_path, "key", compute)
    assert compute.n_calls == 1


def test_unusable_folder_keeps_the_result(tmp_path, caplog):
    """A cache path below a file costs the cache only."""
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert_same(load_or_compute(tmp_path / "file" / "cache", "key", Compute()))
    assert "continuing without it" in caplog.text


def test_deleted_cache_is_created_again(tmp_path):
    """The folder may be deleted while the process runs."""
    load_or_compute(tmp_path / "cache", "key", Compute())
    shutil.rmtree(tmp_path / "cache")
    assert_same(load_or_compute(tmp_path / "cache", "key", Compute()))
    unused = Compute()
    load_or_compute(tmp_path / "cache", "key", unused)
    assert unused.n_calls == 0


def test_arrays_outlive_their_entry(tmp_path):
    """Returned arrays stay readable after the entry is removed."""
    load_or_compute(tmp_path, "key", Compute())
    arrays = load_or_compute(tmp_path, "key", Compute())
    shutil.rmtree(tmp_path)
    assert_same(arrays)


def test_threads_share_one_cache(tmp_path):
    """Eight threads that ask for three keys always get the right arrays."""
    wanted = [{"values": np.arange(1000) * factor} for factor in range(3)]

    def ask(position):
        key = position % 3
        return load_or_compute(tmp_path, f"key {key}", Compute(wanted[key]))

    with ThreadPoolExecutor(8) as pool:
        for position, found in enumerate(pool.map(ask, range(60))):
            assert_same(found, wanted[position % 3])


def test_temporaries_of_killed_writers_go(tmp_path):
    """Opening the store removes the temporary files that no living process writes."""
    cache_dir = tmp_path / "cache"
    folder = cache_dir / "joblib" / "deep"
    folder.mkdir(parents=True)
    orphan = folder / ".tiewise-tmp-999999999-abcdef01.arrays"
    orphan.write_bytes(b"half")
    load_or_compute(cache_dir, "key", Compute())
    assert not orphan.exists()
    assert remove_temporaries(cache_dir) == 0
