"""The cache gives the right arrays or computes them; damage is noticed, never loaded."""

import json
import logging
import pickle
import resource
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from tiewise.files import remove_temporaries
from tiewise.tokens.arrays import read_arrays, remember_arrays, write_arrays

ARRAYS = {
    "values": np.arange(50, dtype=np.int32),
    "empty": np.empty(0, dtype=np.int64),
    "missing": np.array([True, False, True]),
}


class Compute:
    """Gives the arrays, and counts how often it was asked."""

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
    (manifest,) = Path(cache_dir).rglob("manifest.json")
    return manifest.parent


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.]{0,8}", fullmatch=True),
        st.sampled_from([np.int8, np.int32, np.int64, np.bool_, np.float64]).flatmap(
            lambda dtype: arrays_of.arrays(dtype, arrays_of.array_shapes(min_side=0, max_side=5))
        ),
        max_size=4,
    )
)
def test_what_is_written_is_read(tmp_path_factory, arrays):
    """Names, types, shapes and bytes come back, and nobody can write to them."""
    folder = tmp_path_factory.mktemp("entry")
    write_arrays(folder, "key", arrays)
    found = read_arrays(folder, "key")
    assert_same(found, arrays)
    assert all(array.size == 0 or not array.flags.writeable for array in found.values())


def test_the_second_call_computes_nothing(tmp_path):
    """The key alone decides; the function that would compute may differ."""
    first, second, other = Compute(), Compute(), Compute()
    assert_same(remember_arrays(tmp_path, "key", first))
    assert_same(remember_arrays(str(tmp_path), "key", second))
    assert_same(remember_arrays(tmp_path, "another key", other))
    assert (first.n_calls, second.n_calls, other.n_calls) == (1, 0, 1)


def test_without_a_cache_everything_is_computed():
    """None means none."""
    compute = Compute()
    for _ in range(2):
        assert remember_arrays(None, "key", compute) is ARRAYS
    assert compute.n_calls == 2


def test_nothing_but_arrays_and_a_manifest_is_written(tmp_path):
    """No pickle, no metadata, no function code: nothing of joblib's that could be damaged."""
    remember_arrays(tmp_path, "key", Compute())
    names = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    assert names == ["empty.npy", "manifest.json", "missing.npy", "values.npy"]
    assert np.load(entry_of(tmp_path) / "values.npy").tolist() == list(range(50))


@st.composite
def damages(draw):
    """Give a change of a file's bytes that leaves them different."""
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


@given(damages(), st.sampled_from(["empty.npy", "manifest.json", "missing.npy", "values.npy"]))
def test_any_damage_is_recomputed_or_harmless(tmp_path_factory, damage, name):
    """Whatever happens to the bytes of whichever file, the arrays are right."""
    cache_dir = tmp_path_factory.mktemp("cache")
    remember_arrays(cache_dir, "key", Compute())
    path = entry_of(cache_dir) / name
    path.write_bytes(damage(path.read_bytes()))
    assert_same(remember_arrays(cache_dir, "key", Compute()))
    unused = Compute()
    assert_same(remember_arrays(cache_dir, "key", unused))
    assert unused.n_calls == 0


@pytest.mark.parametrize("name", ["empty.npy", "manifest.json", "missing.npy", "values.npy"])
def test_a_removed_file_is_recomputed(tmp_path, name):
    """An entry without one of its files is no entry."""
    remember_arrays(tmp_path, "key", Compute())
    (entry_of(tmp_path) / name).unlink()
    compute = Compute()
    assert_same(remember_arrays(tmp_path, "key", compute))
    assert compute.n_calls == 1


def test_damage_is_said(tmp_path, caplog):
    """A person reads that an entry was damaged, and where it lies."""
    remember_arrays(tmp_path, "key", Compute())
    (entry_of(tmp_path) / "values.npy").write_bytes(b"nonsense")
    with caplog.at_level(logging.WARNING):
        remember_arrays(tmp_path, "key", Compute())
    (record,) = caplog.records
    assert "is damaged (values.npy does not have its checksum)" in record.getMessage()


@pytest.mark.parametrize("names", [["values.npy"], ["values.npy", "empty.npy", "manifest.json"]])
def test_files_of_another_entry_are_not_taken(tmp_path, names):
    """Also a whole entry that lies under a foreign key is noticed."""
    others = {**ARRAYS, "values": np.arange(50, dtype=np.int32) + 1}
    remember_arrays(tmp_path, "key", Compute())
    remember_arrays(tmp_path / "other", "another key", Compute(others))
    entry, other = entry_of(tmp_path / "joblib"), entry_of(tmp_path / "other")
    for name in names:
        shutil.copy(other / name, entry / name)
    assert_same(remember_arrays(tmp_path, "key", Compute()))


def test_a_pickle_is_never_loaded(tmp_path):
    """Not even one whose checksum and manifest are right: the header must name plain numbers."""

    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    remember_arrays(tmp_path, "key", Compute())
    entry = entry_of(tmp_path)
    np.save(entry / "values.npy", np.array([Bomb()]), allow_pickle=True)
    forged = entry_of(tmp_path) / "values.npy"
    body = json.loads((entry / "manifest.json").read_text())["body"]
    import xxhash

    body["checksums"]["values"] = xxhash.xxh3_128_hexdigest(forged.read_bytes())
    checksum = xxhash.xxh3_128_hexdigest(json.dumps(body, sort_keys=True).encode())
    manifest = {"checksum": checksum, "body": body}
    (entry / "manifest.json").write_text(json.dumps(manifest))
    for name in ("output.pkl", "metadata.json"):
        (entry / name).write_bytes(pickle.dumps(Bomb()))
    (entry.parent / "func_code.py").write_bytes(pickle.dumps(Bomb()))
    assert_same(remember_arrays(tmp_path, "key", Compute()))
    assert not (tmp_path / "executed").exists()


def test_a_full_disk_costs_the_cache_and_not_the_result(tmp_path, caplog):
    """When nothing can be written the arrays are returned, and the log says why."""
    big = {"values": np.arange(100_000)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with caplog.at_level(logging.WARNING):
            assert_same(remember_arrays(tmp_path, "key", Compute(big)), big)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "Result not cached" in caplog.text
    assert not list(tmp_path.rglob("*.npy"))
    compute = Compute(big)
    remember_arrays(tmp_path, "key", compute)
    assert compute.n_calls == 1


def test_a_folder_that_cannot_be_made_costs_nothing_either(tmp_path, caplog):
    """A cache path below a file is no reason to stop."""
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        assert_same(remember_arrays(tmp_path / "file" / "cache", "key", Compute()))
    assert "working without" in caplog.text


def test_a_cache_deleted_meanwhile_is_made_again(tmp_path):
    """The folder may go at any time; nothing is lost but the minutes."""
    remember_arrays(tmp_path / "cache", "key", Compute())
    shutil.rmtree(tmp_path / "cache")
    assert_same(remember_arrays(tmp_path / "cache", "key", Compute()))
    unused = Compute()
    remember_arrays(tmp_path / "cache", "key", unused)
    assert unused.n_calls == 0


def test_arrays_outlive_their_entry(tmp_path):
    """What was handed out stays readable when the entry is replaced or removed."""
    remember_arrays(tmp_path, "key", Compute())
    held = remember_arrays(tmp_path, "key", Compute())
    shutil.rmtree(tmp_path)
    assert_same(held)


def test_threads_share_one_cache(tmp_path):
    """Eight threads that ask for three keys get the right arrays each time."""
    wanted = [{"values": np.arange(1000) * factor} for factor in range(3)]

    def ask(position):
        key = position % 3
        return remember_arrays(tmp_path, f"key {key}", Compute(wanted[key]))

    with ThreadPoolExecutor(8) as pool:
        for position, found in enumerate(pool.map(ask, range(60))):
            assert_same(found, wanted[position % 3])


def test_names_cannot_leave_the_folder(tmp_path):
    """An array is named by a word, not by a path."""
    with pytest.raises(ValueError, match="cannot name an array"):
        write_arrays(tmp_path, "key", {"../values": np.arange(3)})


def test_temporaries_of_killed_writers_are_cleared(tmp_path):
    """A store that is opened removes what no living process is writing."""
    cache_dir = tmp_path / "cache"
    folder = cache_dir / "joblib" / "deep"
    folder.mkdir(parents=True)
    orphan = folder / ".tiewise-tmp-999999999-abcdef01.npy"
    orphan.write_bytes(b"half")
    remember_arrays(cache_dir, "key", Compute())
    assert not orphan.exists()
    assert remove_temporaries(cache_dir) == 0
