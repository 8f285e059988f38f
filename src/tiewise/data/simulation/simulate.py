"""Simulate pairs with known P(A), P(B) and P(tie), as readable English.

Two responses to one prompt have qualities that depend on their content (:mod:`.texts`). The
difference d enters Davidson's model of ties, from which the label is drawn:

    P(A) : P(B) : P(tie) = exp(d / 2) : exp(-d / 2) : TIE_STRENGTH

Models of different skill write the responses. Row i depends on the seed and on i alone.

Source: Davidson (1970), On extending the Bradley-Terry model to accommodate ties in paired
comparison experiments. Journal of the American Statistical Association 65(329), 317-328.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from tiewise.data.pairs import TEXT_COLUMNS, build_pairs
from tiewise.data.simulation.texts import (
    Draws,
    Task,
    Traits,
    build_tasks,
    load_texts,
    popular_tasks,
    quality,
    settle,
    write_response,
)
from tiewise.errors import FilesError, ScoresError
from tiewise.files import atomic_path, digest_file, read_json, write_json

TIE_STRENGTH = 2.0
BAYES_COLUMNS = ["bayes_a", "bayes_b", "bayes_tie"]
_WORDS = ("model_a", "model_b", "tie")
_BOTH_BAD = -5.0


class Model(NamedTuple):
    """An invented writer of responses: skill in [-1, 1], wordiness in [0, 1]."""

    name: str
    skill: float
    wordiness: float


MODELS = (
    Model("aster-large", 0.9, 0.35),
    Model("birch-large", 0.6, 0.75),
    Model("cedar-base", 0.3, 0.15),
    Model("dahlia-base", 0.1, 0.55),
    Model("elm-base", -0.1, 0.90),
    Model("fern-small", -0.4, 0.30),
    Model("gorse-small", -0.7, 0.60),
    Model("hazel-tiny", -1.0, 0.10),
)


def posterior(quality_a: npt.ArrayLike, quality_b: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return P(A), P(B), P(tie) by Davidson's model, shape (n, 3), from qualities in log odds.

    Exchanging the qualities exchanges the first two columns exactly.

    >>> posterior([0.0, 6.0], [0.0, 0.0]).round(2).tolist()
    [[0.25, 0.25, 0.5], [0.91, 0.0, 0.09]]
    """
    half = np.subtract(quality_a, quality_b, dtype=np.float64) / 2
    odds = np.stack([np.exp(half), np.exp(-half), np.full_like(half, TIE_STRENGTH)], axis=-1)
    total = odds[..., 0] + odds[..., 1] + odds[..., 2]
    return np.asarray(odds / total[..., None])


def simulate(n: int, *, seed: int = 0) -> pd.DataFrame:
    """Return a pairs table of `n` rows, with the true probabilities in `BAYES_COLUMNS`.

    ScoresError when `n` is below 1 or `seed` below 0.

    >>> simulate(200).equals(simulate(300).head(200))
    True
    """
    if n < 1 or seed < 0:
        raise ScoresError(
            f"simulate: n={n}, seed={seed}; expected n of at least 1 and a seed of at least 0. "
            "Choose other numbers (--n, --seed)."
        )
    rows = pd.DataFrame([_draw_row(seed, row) for row in range(n)])
    qualities = rows[["quality_a", "quality_b"]]
    bayes = posterior(*qualities.to_numpy().T)
    labels = (rows["uniform"].to_numpy()[:, None] >= bayes.cumsum(axis=1)[:, :2]).sum(axis=1)
    words = np.array(_WORDS, dtype=object)[labels]
    words[(labels == 2) & (qualities.max(axis=1) <= _BOTH_BAD)] = "tie (bothbad)"
    names = (*TEXT_COLUMNS, "model_a", "model_b")
    columns = {"id": range(n), "winner": words, **{name: rows[name] for name in names}}
    table = build_pairs(columns | {"language": ["English"] * n, "source": ["simulated"] * n})
    table[BAYES_COLUMNS] = bayes
    return table


def bayes_log_loss(pairs: pd.DataFrame) -> float:
    """Return the mean log loss of the true probabilities: no model is better on average.

    >>> 0.5 < bayes_log_loss(simulate(300)) < 0.8
    True
    """
    probs = pairs[BAYES_COLUMNS].to_numpy(dtype=np.float64)
    labels = pairs["label"].to_numpy(dtype=np.int64)
    return float(-np.log(probs[np.arange(len(labels)), labels]).mean())


def write_simulation(pairs: pd.DataFrame, path: Path | str) -> float:
    """Write a Kaggle csv and two files with the true probabilities; return the Bayes log loss.

    ``train.csv`` gets JSON-list cells and one-hot winners; ``train.bayes.csv`` the columns `id` and
    `BAYES_COLUMNS`; ``train.bayes.json`` the number of rows, the Bayes log loss, and the digest of
    ``train.csv``, so that the probabilities are used for this file alone.
    """
    csv_path, bayes_path, json_path = simulation_files(path)
    with atomic_path(csv_path) as temporary:
        _kaggle_columns(pairs).to_csv(temporary, index=False)
    with atomic_path(bayes_path) as temporary:
        pairs[["id", *BAYES_COLUMNS]].to_csv(temporary, index=False)
    loss = bayes_log_loss(pairs)
    about = {"n": len(pairs), "bayes_log_loss": loss, "csv_sha256": digest_file(csv_path)}
    write_json(json_path, about)
    return loss


def simulation_files(path: Path | str) -> tuple[Path, Path, Path]:
    """Return the files of a simulation: the pairs, their probabilities, and a description."""
    path = Path(path)
    if path.suffix != ".csv":
        raise FilesError(f"{path}: a simulation is a csv file; give a name that ends in .csv.")
    return path, path.with_suffix(".bayes.csv"), path.with_suffix(".bayes.json")


def join_posterior(pairs: pd.DataFrame, paths: Sequence[Path | str]) -> pd.DataFrame:
    """Join simulated rows with the probabilities that :func:`write_simulation` wrote for them.

    Rows are returned unchanged unless every file has its probabilities and every row is in them.
    Probabilities of a file that was changed later are not used.
    """
    if not paths or not all(map(_has_posterior, paths)):
        return pairs
    tables = [
        pd.read_csv(simulation_files(path)[1], dtype=str, keep_default_na=False) for path in paths
    ]
    table = pd.concat(tables).set_index("id")
    is_known = table.index.is_unique and pairs["id"].astype(str).isin(table.index).all()
    if not is_known or list(table) != BAYES_COLUMNS:
        return pairs
    probs = table.reindex(pairs["id"].astype(str)).to_numpy(np.float64)
    return pairs.assign(**dict(zip(BAYES_COLUMNS, probs.T, strict=True)))


def _has_posterior(path: Path | str) -> bool:
    if Path(path).suffix != ".csv" or not all(file.is_file() for file in simulation_files(path)):
        return False
    try:
        about = read_json(simulation_files(path)[2])
    except ValueError:
        return False
    return isinstance(about, dict) and about.get("csv_sha256") == digest_file(path)


def _draw_row(seed: int, row: int) -> dict[str, Any]:
    draws = Draws(seed, row)
    tasks = _draw_tasks(draws)
    first = draws.below(len(MODELS))
    second = (first + 1 + draws.below(len(MODELS) - 1)) % len(MODELS)
    prompts = [tasks[0].prompt, *(_follow_up(task, draws) for task in tasks[1:])]
    cells: dict[str, Any] = {"prompt": prompts, "uniform": draws.uniform()}
    for side, model in (("a", MODELS[first]), ("b", MODELS[second])):
        traits = [settle(task, _draw_traits(model, draws)) for task in tasks]
        pieces = zip(tasks, traits, strict=True)
        cells[f"response_{side}"] = [write_response(task, kind, draws) for task, kind in pieces]
        cells[f"quality_{side}"] = sum(map(quality, traits)) / len(traits)
        cells[f"model_{side}"] = model.name
    return cells


def _draw_tasks(draws: Draws) -> list[Task]:
    """Return one task, sometimes two or three; a third of the rows begin with a popular one."""
    first = draws.choose(popular_tasks() if draws.happens(0.35) else build_tasks())
    luck = draws.uniform()
    n_more = 2 if luck < 0.01 else int(luck < 0.08)
    return [first, *(draws.choose(build_tasks()) for _ in range(n_more))]


def _follow_up(task: Task, draws: Draws) -> str:
    frames: list[str] = load_texts()["phrases"]["follow_ups"]
    return draws.choose(frames).replace("{prompt}", task.prompt)


def _draw_traits(model: Model, draws: Draws) -> Traits:
    luck = draws.uniform()
    lapse = 0.10 - 0.05 * model.skill
    return Traits(
        missing=int(luck < 0.008),
        refusal=int(0.008 <= luck < 0.008 + 1.2 * lapse),
        off_topic=int(0.992 - 0.7 * lapse <= luck),
        wrong=draws.happens(0.22 - 0.12 * model.skill),
        ignored=draws.happens(0.25 - 0.12 * model.skill),
        reason=draws.happens(0.35 + 0.15 * model.skill),
        fillers=sum(draws.happens(0.1 + 0.4 * model.wordiness) for _ in range(3)),
        hedge=draws.happens(0.18 - 0.06 * model.skill),
        rude=draws.happens(lapse),
        repetition=draws.happens(lapse),
        layout=draws.happens(0.45 + 0.2 * model.skill),
    )


def _kaggle_columns(pairs: pd.DataFrame) -> pd.DataFrame:
    table = pairs[["id", "model_a", "model_b"]].copy()
    for name in TEXT_COLUMNS:
        table[name] = [json.dumps(turns) for turns in pairs[name]]
    for label, word in enumerate(_WORDS):
        table[f"winner_{word}"] = (pairs["label"] == label).astype(np.int64)
    return table
