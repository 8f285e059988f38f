"""Find prompts that are nearly equal, in a time that grows with their number.

Texts are compared by the share of five-character pieces that they have in common (Jaccard index;
Broder, 1997, "On the resemblance and containment of documents"). MinHash sketches, split into
bands, name the candidates: texts that agree in all hashes of a band. The library rensa (the extra
``audit``) makes the sketches, and the exact share confirms each candidate.

Each text is compared with at most 32 others, and a bucket (the texts that agree in a band) lists
its first 64. So thousands of prompts from one template take no longer than thousands of different
ones. The bound costs recall in such data only: prompts whose share is close to the threshold may
stay apart when their common pieces are those of the template; closer ones agree in further bands.
"""

from __future__ import annotations

import importlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.console import progress_bar
from tiewise.data.first_text import first_texts
from tiewise.data.folds import merge_groups
from tiewise.errors import PairsError

Pieces = npt.NDArray[np.uint64]
"""Hashes of the distinct five-character pieces of a text, ascending."""

_LENGTH, _MAX_COMPARED = 5, 2_000
_N_HASHES, _SEED = 120, 1
_LEAST_RECALL = 0.995
_MAX_CANDIDATES, _MAX_IN_BUCKET = 32, 64
_NO_CHARACTER = 0x110000  # fills up texts of fewer than five characters
_WEIGHTS = np.random.default_rng(_SEED).integers(2**63, size=_LENGTH, dtype=np.uint64) * 2 + 1


def merge_near_duplicates(pairs: pd.DataFrame, *, threshold: float = 0.8) -> npt.NDArray[np.str_]:
    """Return each row's group, shape (n,), after merging groups with nearly equal first texts.

    `threshold`, in (0, 1], is the least share of pieces in common among the first 2,000 characters
    of the user's first text, normalised as for prompt groups. A text is only near to a text that is
    not near to another one itself, so there are no chains of texts. A group may hold several texts,
    as those of a session; each of them counts. The order of the rows has no effect.
    """
    texts = [text[:_MAX_COMPARED] for text in first_texts(pairs)]
    known = pd.DataFrame({"group": pairs["group"].to_numpy(dtype=object), "text": texts})
    distinct = known.drop_duplicates().sort_values(["group", "text"])
    near = list(_find_first_near(distinct["text"].tolist(), threshold))
    names = distinct["group"].tolist()
    merged = dict(zip(names, merge_groups(names, near), strict=True))
    return np.array([merged[group] for group in known["group"]], dtype=str)


def choose_band_size(threshold: float) -> int:
    """Return how many hashes make a band.

    The largest divisor of the 120 hashes with which two texts whose share is `threshold` agree in a
    band with a probability of at least 0.995.

    >>> [choose_band_size(threshold) for threshold in (0.2, 0.5, 0.8, 1.0)]
    [1, 3, 6, 120]
    """
    if not 0 < threshold <= 1:
        raise PairsError(f"threshold is {threshold}; expected a share above 0 and up to 1")
    sizes = [size for size in range(1, _N_HASHES + 1) if _N_HASHES % size == 0]
    return max(size for size in sizes if _recall(threshold, size) >= _LEAST_RECALL or size == 1)


def _recall(share: float, band_size: int) -> float:
    return float(1 - (1 - share**band_size) ** (_N_HASHES // band_size))


def _find_first_near(texts: Sequence[str], threshold: float) -> Iterator[int]:
    """Yield for each text the first earlier one that is near and not merged, or the text itself."""
    rensa: Any = importlib.import_module("rensa")
    band_size = choose_band_size(threshold)
    buckets: dict[Hashable, list[int]] = defaultdict(list)
    known: dict[int, Pieces] = {}
    with progress_bar(len(texts), name="near-duplicates", unit="prompt", delay=1) as bar:
        for i, text in enumerate(texts):
            pieces = _split(text)
            bands = _sketch(rensa, pieces, band_size)
            candidates = _candidates(buckets, bands)
            near = (j for j in candidates if share_of(known[j], pieces) >= threshold)
            found = next(near, i)
            if found == i:
                known[i] = pieces
                _insert(buckets, bands, i)
            bar.update()
            yield found


def _split(text: str) -> Pieces:
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    filled = np.full(max(len(codes), _LENGTH), _NO_CHARACTER, dtype=np.uint64)
    filled[: len(codes)] = codes
    windows = np.lib.stride_tricks.sliding_window_view(filled, _LENGTH)
    return np.unique((windows * _WEIGHTS).sum(axis=1, dtype=np.uint64))


def _sketch(rensa: Any, pieces: Pieces, band_size: int) -> list[Hashable]:
    """Return the bands of a text's MinHash sketch, each with its place."""
    sketch = rensa.RMinHash(num_perm=_N_HASHES, seed=_SEED)
    data, width = pieces.tobytes(), pieces.itemsize
    sketch.update([data[start : start + width] for start in range(0, len(data), width)])
    hashes = sketch.digest()
    starts = range(0, _N_HASHES, band_size)
    return [(start, *hashes[start : start + band_size]) for start in starts]


def _candidates(buckets: dict[Hashable, list[int]], bands: Sequence[Hashable]) -> list[int]:
    """Return the texts that agree in most bands, at most 32, in the order in which they came."""
    counts = Counter(j for band in bands for j in buckets.get(band, ()))
    return sorted(sorted(counts, key=lambda j: (-counts[j], j))[:_MAX_CANDIDATES])


def _insert(buckets: dict[Hashable, list[int]], bands: Sequence[Hashable], i: int) -> None:
    for band in bands:
        bucket = buckets[band]
        if len(bucket) < _MAX_IN_BUCKET:
            bucket.append(i)


def share_of(pieces: Pieces, others: Pieces) -> float:
    """Return the share of the pieces of two texts that both have."""
    places = np.minimum(np.searchsorted(pieces, others), len(pieces) - 1)
    n_common = int(np.count_nonzero(pieces[places] == others))
    return n_common / (len(pieces) + len(others) - n_common)
