"""The token cache under faults: the tokens are read correctly or computed again, never wrong.

``TIEWISE_TORTURE`` sets the number of faults: 5,000 in full, 200 when quick, else 100;
``TIEWISE_FAULTS`` overrides it. ``TIEWISE_SEED`` sets the seed; a failure names the fault.
"""

from __future__ import annotations

import errno
import logging
import os
import pickle
import random
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import tiewise
from small_tokenizers import byte_level
from tiewise import files
from tiewise.tokens.tokenization import FIELDS, TokenizedPairs, tokenize
from tiewise.tokens.tokenizer import load_tokenizer

SCALE = {"full": "5000", "quick": "200"}.get(os.environ.get("TIEWISE_TORTURE", ""), "100")
N_FAULTS = int(os.environ.get("TIEWISE_FAULTS", SCALE))
N_PROCESSES = max(4, N_FAULTS // 125)  # 40 in full
SEED = int(os.environ.get("TIEWISE_SEED", "0"))

pytestmark = pytest.mark.timeout(3600)

WORDS = ["Which", "of two", "<|im_end|>", "answers", "\n", "é中", "null", "is right?", ""]

CHILD = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from tiewise.tokens.tokenization import tokenize
from tiewise.tokens.tokenizer import load_tokenizer
home, cache, n_rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
pairs = pd.read_pickle(home / "pairs.pickle")
tokenizer = load_tokenizer(home)
fresh = tokenize(pairs, tokenizer, cache_dir=None)
def digest(tokenized):
    return [array.tobytes() for field in tokenized for array in vars(field).values()]
expected = digest(fresh)
print("ready", flush=True)
for round in range(n_rounds):
    assert digest(tokenize(pairs, tokenizer, cache_dir=cache)) == expected, "wrong tokens"
    for entry in cache.rglob("*.arrays"):
        if round % 2 == 0:
            entry.unlink(missing_ok=True)
print(len(fresh.prompt.values), flush=True)
"""


def draw_pairs(seed: int) -> pd.DataFrame:
    """Draw a few pairs of hostile, empty and missing turns."""
    generator = random.Random(seed)

    def cell():
        turns = [" ".join(generator.choices(WORDS, k=generator.randint(0, 30))) for _ in range(2)]
        return [generator.choice([turn, None]) for turn in turns]

    return pd.DataFrame({name: [cell() for _ in range(20)] for name in FIELDS})


def digest(tokenized: TokenizedPairs) -> list[bytes]:
    return [array.tobytes() for field in tokenized for array in vars(field).values()]


@pytest.fixture
def home(tmp_path):
    """Create a folder with a tokenizer and pairs for child processes."""
    (tmp_path / "tokenizer.json").write_text(byte_level().state)
    draw_pairs(SEED).to_pickle(tmp_path / "pairs.pickle")
    return tmp_path


def start_child(home: Path, cache: Path, n_rounds: int, source: Path | None = None):
    """Run `CHILD`, with another copy of the package when `source` names its folder."""
    arguments = [sys.executable, "-c", CHILD, str(home), str(cache), str(n_rounds)]
    environment = os.environ | ({"PYTHONPATH": str(source)} if source else {})
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)


class Bomb:
    """Executes when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def corrupted(data: bytes, kind: str, generator: random.Random) -> bytes:
    position = generator.randrange(len(data)) if data else 0
    length = generator.choice([1, 8, 64, 4096])
    if kind == "flip":
        bit = 1 << generator.randrange(8)
        return data[:position] + bytes([data[position] ^ bit]) + data[position + 1 :]
    if kind == "zero":
        end = min(position + length, len(data))
        return data[:position] + bytes(end - position) + data[end:]
    if kind == "swap":
        return data[position:] + data[:position]
    return {"truncate": data[:position], "append": data + b"\0" * length, "empty": b""}[kind]


def inject(cache: Path, others: Path, bomb: bytes, generator: random.Random) -> str:
    """Damage the cache as a disk, a user or an attacker could; return a description."""
    path = generator.choice(sorted(cache.rglob("*.arrays")))
    kinds = ["flip", "flip", "zero", "truncate", "append", "empty", "swap"]
    kind = generator.choice([*kinds, "remove", "foreign", "pickle", "folder"])
    if kind in kinds:
        path.write_bytes(corrupted(path.read_bytes(), kind, generator))
    elif kind == "remove":
        path.unlink()
    elif kind == "foreign":
        path.write_bytes(next(others.rglob("*.arrays")).read_bytes())
    elif kind == "pickle":
        folder = path.with_suffix("")
        folder.mkdir(exist_ok=True)
        for name in ("output.pkl", "metadata.json", "../func_code.py", "../../func_code.py"):
            (folder / name).write_bytes(bomb)
        path.write_bytes(bomb)
    else:
        path.unlink()
        path.mkdir()
    return f"{kind} {path.relative_to(cache)}"


def test_no_fault_gives_wrong_tokens(home, caplog, monkeypatch):
    """After each of thousands of faults the tokens equal those without a cache."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(files, "_flush", lambda path: None)  # saves time; the contents are equal
    tokenizer, generator = load_tokenizer(home), random.Random(SEED)
    pairs, other_pairs = draw_pairs(SEED), draw_pairs(SEED + 1)
    expected = digest(tokenize(pairs, tokenizer, cache_dir=None))
    cache, others = home / "cache", home / "others"
    bomb = pickle.dumps(Bomb(home / "executed"))
    tokenize(other_pairs, tokenizer, cache_dir=others)
    for number in range(N_FAULTS):
        tokenize(pairs, tokenizer, cache_dir=cache)
        fault = inject(cache, others, bomb, generator)
        found = digest(tokenize(pairs, tokenizer, cache_dir=cache))
        assert found == expected, f"fault {number} of seed {SEED}: {fault}"
        if fault.startswith("folder"):  # a writer does not replace a folder
            shutil.rmtree(cache)
    assert not (home / "executed").exists()


def test_killed_writer_leaves_correct_cache(home):
    """The files of a killed writer are complete or ignored, and its temporary files are removed."""
    generator = random.Random(SEED)
    pairs, tokenizer = draw_pairs(SEED), load_tokenizer(home)
    expected = digest(tokenize(pairs, tokenizer, cache_dir=None))
    for number in range(N_PROCESSES):
        cache = home / f"cache{number}"
        child = start_child(home, cache, 10_000)
        assert child.stdout.readline() == "ready\n"
        time.sleep(generator.uniform(0, 0.1))
        child.kill()
        child.communicate()
        assert digest(tokenize(pairs, tokenizer, cache_dir=cache)) == expected
        assert digest(tokenize(pairs, tokenizer, cache_dir=cache)) == expected
        assert not list(cache.rglob(".tiewise-tmp-*"))


def test_full_disk_keeps_the_tokens(home, caplog):
    """Wherever the space ends, the tokens are right, and the log says why nothing is cached."""
    pairs, tokenizer = draw_pairs(SEED), load_tokenizer(home)
    expected = digest(tokenize(pairs, tokenizer, cache_dir=None))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in np.linspace(0, 12_000, N_PROCESSES).astype(int).tolist():
        caplog.clear()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            found = digest(tokenize(pairs, tokenizer, cache_dir=home / f"cache{limit}"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert found == expected
        is_cached = list((home / f"cache{limit}").rglob("*.arrays"))
        assert is_cached or "Result not cached" in caplog.text
        assert digest(tokenize(pairs, tokenizer, cache_dir=home / f"cache{limit}")) == expected


def test_failing_flush_keeps_the_tokens(home, monkeypatch, caplog):
    """An error from the disk at the first, second, … flush leaves the tokens right."""
    caplog.set_level(logging.CRITICAL)
    pairs, tokenizer = draw_pairs(SEED), load_tokenizer(home)
    expected = digest(tokenize(pairs, tokenizer, cache_dir=None))
    flush = files._flush
    for failing in range(0, 40, 1 if N_FAULTS >= 1000 else 8):
        calls = iter(range(1000))

        def fail(path, calls=calls, failing=failing):
            if next(calls) == failing:
                raise OSError(errno.ENOSPC, "No space left on device")
            flush(path)

        monkeypatch.setattr(files, "_flush", fail)
        cache = home / f"cache{failing}"
        assert digest(tokenize(pairs, tokenizer, cache_dir=cache)) == expected
        monkeypatch.setattr(files, "_flush", flush)
        assert digest(tokenize(pairs, tokenizer, cache_dir=cache)) == expected
        assert not list(cache.rglob(".tiewise-tmp-*"))


def test_six_writers_share_an_entry(home):
    """Six processes write, read and remove one entry; each always gets the right tokens."""
    children = [start_child(home, home / "cache", 4 * N_PROCESSES) for _ in range(6)]
    for child in children:
        child.communicate(timeout=280)
        assert child.returncode == 0


def test_two_code_versions_share_a_cache(home):
    """Code that bounds turns differently gets its own tokens, not those of the other code."""
    changed = home / "changed"
    shutil.copytree(Path(tiewise.__file__).parent, changed / "tiewise")
    tokens = changed / "tiewise" / "tokens" / "tokenization.py"
    text = tokens.read_text()
    assert "Bound(head=4096, tail=4096)" in text
    tokens.write_text(text.replace("Bound(head=4096, tail=4096)", "Bound(head=5, tail=5)"))
    for _ in range(max(1, N_PROCESSES // 10)):
        sources = [None, changed, None, changed]
        children = [start_child(home, home / "cache", 3, source) for source in sources]
        n_tokens = [child.communicate(timeout=280)[0].split()[-1] for child in children]
        assert all(child.returncode == 0 for child in children)
        assert n_tokens[0] == n_tokens[2] != n_tokens[1] == n_tokens[3]
