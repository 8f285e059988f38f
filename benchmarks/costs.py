"""What pairs cost: floating-point operations and hours, by backbone and by mode.

    python -m benchmarks.costs

prints the first tables of ``docs/scaling.md``, from shapes of backbones and ``lengths.csv`` alone;
``python -m benchmarks.cost_checks`` holds them against this machine and adds memory.

The model: a token that passes a layer once costs F, two operations for each weight of the layer and
2 n q for attention in a row of n tokens (q: width of all queries; 4 n q where a token sees both
sides). Backward through frozen weights is F again, with two attentions; weights that are trained
cost two operations more each. Layers below the first adapter are passed once; a layer whose
activations are recomputed is passed once more; of a decoder's last layer only keys and values are
every token's.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

LENGTHS = Path(__file__).with_name("lengths.csv")
N_DELIMITERS = 7
SIZES = (57_477, 10**6, 10**8)
"""Pairs: the competition's, and two powers of ten."""
PUBLISHED_HOURS = 15
"""What the notebook's author gave for one fold on one A6000."""
RATE = 30e12
"""Operations a second to state hours at; near to what the published hours come to."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shape:
    """Sizes of a backbone's layers, as its ``config.json`` has them."""

    n_layers: int
    hidden: int
    inner: int
    queries: int
    """Width of all query heads."""
    keys: int
    """Width of all key heads."""
    vocabulary: int
    is_decoder: bool = True

    @property
    def linears(self) -> list[tuple[int, int]]:
        """Return (width in, width out) of each linear layer."""
        attention = [(self.hidden, self.queries), *[(self.hidden, self.keys)] * 2]
        n_up = 2 if self.is_decoder else 1
        mlp = [*[(self.hidden, self.inner)] * n_up, (self.inner, self.hidden)]
        return [*attention, (self.queries, self.hidden), *mlp]

    @property
    def layer_weights(self) -> int:
        """Return the numbers in one layer's matrices."""
        return sum(a * b for a, b in self.linears)

    @property
    def n_parameters(self) -> int:
        """Return the numbers of all layers and the embedding."""
        return self.n_layers * self.layer_weights + self.vocabulary * self.hidden


SHAPES = {
    "Gemma-2-27b": Shape(46, 4608, 36864, 4096, 2048, 256_000),
    "Gemma-2-9b": Shape(42, 3584, 14336, 4096, 2048, 256_000),
    "Gemma-2-2b": Shape(26, 2304, 9216, 2048, 1024, 256_000),
    "SmolLM2-135M": Shape(30, 576, 1536, 576, 192, 49_152),
    "all-MiniLM-L6-v2": Shape(6, 384, 1536, 384, 384, 30_522, is_decoder=False),
}


@dataclass(frozen=True)
class Mode:
    """Which layers train, and what is computed twice."""

    n_frozen: int = 0
    rank: int = 0
    n_adapted: int = 7
    """Of the linear layers, in the order of :attr:`Shape.linears`."""
    is_training: bool = True
    is_full: bool = False
    is_recomputed: bool = False
    is_notebook: bool = False
    """Every layer forward, forward again and backward; no pooled last layer."""
    n_orders: int = 2
    """In which the held-out rows are scored."""


_KAGGLE = tuple(
    (name, order, n)
    for name in ("Gemma-2-9b", "Gemma-2-2b")
    for order, n in (("one order", 1), ("both orders", 2))
)
RECOMMENDED = Mode(rank=64)
NOTEBOOK = Mode(n_frozen=16, rank=16, n_adapted=3, n_orders=1)
MODES = {
    "the notebook's way": replace(NOTEBOOK, n_frozen=0, is_notebook=True, is_recomputed=True),
    "`notebook`": NOTEBOOK,
    "`notebook`, recomputed": replace(NOTEBOOK, is_recomputed=True),
    "`gemma2-9b`": RECOMMENDED,
    "`gemma2-9b`, recomputed": replace(RECOMMENDED, is_recomputed=True),
}
SCORING = Mode(is_training=False)


def row_work(shape: Shape, mode: Mode, lengths: npt.ArrayLike) -> Floats:
    """Return the operations that rows of n tokens cost, (n_rows,)."""
    length = np.asarray(lengths, np.float64)
    weights = 2.0 * shape.layer_weights * length
    attention = (2.0 if shape.is_decoder else 4.0) * shape.queries * length**2
    adapters = 2.0 * adapter_size(shape, mode) * length
    forward = weights + attention + adapters
    backward = weights + 2 * attention + 2 * adapters + (weights if mode.is_full else 0.0)
    n_whole, is_pooled = shape.n_layers, shape.is_decoder and not mode.is_notebook
    if is_pooled:
        n_whole -= 1
    n_trained = (n_whole - mode.n_frozen) * mode.is_training
    total = n_whole * forward + n_trained * (backward + mode.is_recomputed * forward)
    if is_pooled:
        times = 1 + mode.is_training * (1 + mode.is_recomputed)
        total = total + times * 4.0 * shape.hidden * shape.keys * length
    return np.asarray(total)


def count_passes(shape: Shape, mode: Mode) -> float:
    """Return how often a token passes a layer, in F: the work over that of one layer's matrices.

    Adapters and attention are left out.
    """
    return float(row_work(shape, replace(mode, rank=0), [1e-6])[0] / (2e-6 * shape.layer_weights))


def row_lengths(max_length: int) -> npt.NDArray[np.int64]:
    """Return the tokens of the rows in ``lengths.csv``, delimiters included, cut at a length."""
    with LENGTHS.open(newline="") as file:
        table = np.array([list(map(int, row)) for row in list(csv.reader(file))[1:]])
    return np.minimum(table.sum(1) + N_DELIMITERS, max_length)


def padded_lengths(lengths: npt.NDArray[np.int64], *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Return the lengths of rows that are padded two by two, as they come."""
    shuffled = np.random.default_rng(seed).permutation(lengths)
    shuffled = shuffled[: len(shuffled) // 2 * 2]
    return np.repeat(shuffled.reshape(-1, 2).max(1), 2)


def fit_work(shape: Shape, mode: Mode, lengths: npt.NDArray[np.int64], n_pairs: int) -> float:
    """Return the operations of one fold: four fifths fitted, one fifth scored."""
    fitted = padded_lengths(lengths) if mode.is_notebook else lengths
    fit, score = row_work(shape, mode, fitted).mean(), row_work(shape, SCORING, lengths).mean()
    return float(n_pairs * (0.8 * fit + 0.2 * mode.n_orders * score))


def adapter_size(shape: Shape, mode: Mode) -> int:
    """Return the numbers that a layer's adapters hold."""
    return mode.rank * sum(a + b for a, b in shape.linears[: mode.n_adapted])


# ---- tables -------------------------------------------------------------------------------


def tokens_table() -> list[str]:
    """Describe the rows: tokens of a pair, and what padding two by two adds."""
    lines = ["| max_length | tokens a pair | padded two by two |", "| --- | --- | --- |"]
    for max_length in (256, 512, 1024, 2048):
        lengths = row_lengths(max_length)
        factor = padded_lengths(lengths).sum() / lengths.sum()
        lines.append(f"| {max_length:,} | {lengths.mean():.0f} | x{factor:.2f} |")
    return lines


def passes_table() -> list[str]:
    """Count passes of a token through a layer of the 9B, and the hours of one fold."""
    shape = SHAPES["Gemma-2-9b"]
    lines = [
        "| mode, Gemma-2-9b | max_length | passes (F a token) | EFLOP, one fold | hours |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, mode in MODES.items():
        max_length = 2048 if "gemma2" in name else 1024
        work = fit_work(shape, mode, row_lengths(max_length), SIZES[0])
        passes = count_passes(shape, mode)
        lines.append(
            f"| {name} | {max_length:,} | {passes:.1f} | {work / 1e18:.2f} "
            f"| {work / RATE / 3600:.1f} |"
        )
    return lines


def backbones_table() -> list[str]:
    """State hours of fitting one fold, and of predicting in both orders, by backbone and size."""
    sizes = [f"{n:,}" for n in SIZES]
    lines = [
        "| backbone | layers' weights | GFLOP a pair: fit, score | "
        + " | ".join(f"fit {n}" for n in sizes)
        + " | "
        + " | ".join(f"predict {n}" for n in sizes)
        + " |",
        "| --- " * (3 + 2 * len(sizes)) + "|",
    ]
    for name, shape in SHAPES.items():
        max_length = {"SmolLM2-135M": 512, "all-MiniLM-L6-v2": 256}.get(name, 2048)
        lengths = row_lengths(max_length)
        mode = RECOMMENDED if shape.is_decoder else Mode(is_full=True)
        fit = fit_work(shape, mode, lengths, 1)
        both = 2 * row_work(shape, SCORING, lengths).mean()
        hours = [work * n / RATE / 3600 for work in (fit, both) for n in SIZES]
        weights = f"{shape.n_layers * shape.layer_weights / 1e9:.3g} G"
        cells = [name, weights, f"{fit / 1e9:,.0f}, {both / 1e9:,.0f}", *map(_hours, hours)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def limits_table() -> list[str]:
    """State how many pairs two GPUs score within nine hours, by what each of them achieves."""
    lines = [
        "| TFLOP/s of each GPU | " + " | ".join(f"{each[0]}, {each[1]}" for each in _KAGGLE) + " |",
        "| --- " * (1 + len(_KAGGLE)) + "|",
    ]
    for rate in (5, 10, 20):
        seconds = 2 * 9 * 3600 * rate * 1e12
        cells = [
            f"{seconds / (n * row_work(SHAPES[name], SCORING, row_lengths(2048)).mean()):,.0f}"
            for name, _, n in _KAGGLE
        ]
        lines.append(f"| {rate} | {' | '.join(cells)} |")
    return lines


def published_rate() -> list[str]:
    """Return what the published hours of the notebook come to."""
    shape, mode = SHAPES["Gemma-2-9b"], MODES["the notebook's way"]
    work = fit_work(shape, mode, row_lengths(1024), SIZES[0])
    rate = work / PUBLISHED_HOURS / 3600 / 1e12
    return [f"{work / 1e18:.2f} EFLOP in {PUBLISHED_HOURS} hours: {rate:.0f} TFLOP/s"]


def _hours(hours: float) -> str:
    if hours < 0.1:
        return f"{hours * 60:.2g} min"
    return f"{hours:,.1f} h" if hours < 100 else f"{hours / 24:,.0f} days"


TABLES = (tokens_table, passes_table, published_rate, backbones_table, limits_table)


def main() -> None:
    """Print the tables."""
    for table in TABLES:
        print("\n".join(table()), end="\n\n")


if __name__ == "__main__":
    main()
