"""Check that transformers alone gives an exported model the scores of its adapter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from tiewise.config import ModelConfig
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError
from tiewise.models.attention import collate
from tiewise.models.build import load_classifier
from tiewise.models.loading import quiet_transformers
from tiewise.models.scoring import score_rows
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import load_tokenizer

Floats = npt.NDArray[np.float64]
N_CHECKED = 16
_TOLERANCE = {"float64": 1e-9, "float32": 1e-5}
_ROUGH_TOLERANCE = 0.1
"""In 16 or 4 bits, where merging rounds: beyond it the result is another model."""


def make_rows(backbone_dir: Path, template: Template) -> TokenRows:
    """Return the rows of simulated pairs that both are asked about."""
    pairs = simulate(N_CHECKED, seed=0)
    return token_rows(pairs, load_tokenizer(backbone_dir), template, cache_dir=None)


def score_adapter(
    adapter_dir: Path, backbone_dir: Path, rows: TokenRows, device: torch.device | str
) -> Floats:
    """Return the adapter's probabilities, shape (n, 3)."""
    classifier = load_classifier(adapter_dir, backbone_dir, device=device)
    return np.asarray(softmax(score_rows(classifier, rows), axis=1))


def score_plain(folder: Path, rows: TokenRows, device: torch.device | str) -> Floats:
    """Return the folder's probabilities as transformers alone computes them, shape (n, 3)."""
    from transformers import AutoModelForSequenceClassification

    with quiet_transformers():
        network = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype="auto", local_files_only=True, trust_remote_code=False
        )
    network = network.to(device).eval()
    pad_id = network.config.pad_token_id
    batch = collate(rows, range(len(rows)), layout="padded", pad_id=pad_id, device=device)
    batch.pop("lengths")
    with torch.no_grad():
        logits = network(**batch).logits
    return np.asarray(softmax(logits.double().cpu().numpy(), axis=1))


def check_drift(drift: float, config: ModelConfig) -> None:
    """Refuse a merge whose probabilities are further from the adapter's than rounding explains.

    Raises
    ------
    ModelError
        When they are, or are none.
    """
    is_rough = config.quantization != "none" or config.dtype not in _TOLERANCE
    most = _ROUGH_TOLERANCE if is_rough else _TOLERANCE[config.dtype]
    if not drift <= most:
        raise ModelError(
            f"The merged model's probabilities differ by {drift:.3g} from the adapter's, more than "
            f"{most:g}. Nothing was written; please report this with the configuration."
        )
