"""The classifier of pairs: a backbone, its adapters, and a head with three classes.

``forward`` takes a batch of :func:`tiewise.models.attention.collate` in any layout and returns one
row of logits per pair, in the order A, B, tie. A decoder's row is pooled at its last token here,
whatever the token is, so no padding token is ever looked for; an encoder keeps its own way to the
head. The head is trained, saved and restored with the adapters, never quantised, and computes in
float32 or better.

This module is a leaf: it imports torch, transformers and peft, and nothing below imports it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tiewise.config.run_config import ModelConfig, TrainConfig
from tiewise.errors import ModelError
from tiewise.models import adapters
from tiewise.models.attention import attends_by_rows, find_spans, last_index, last_only
from tiewise.models.loading import (
    Checkpointing,
    checkpoint_layers,
    count_positions,
    find_dropped_head,
    find_layers,
    load_network,
    working_dtype,
)
from tiewise.models.norms import replace_norms
from tiewise.models.param_groups import group_parameters
from tiewise.models.pooling import pool_last_layer
from tiewise.models.response_head import compare_responses
from tiewise.models.trainable import add_adapters

_log = logging.getLogger(__name__)


class PairClassifier(nn.Module):
    """Logits of A, B, tie for rows of tokens.

    Attributes
    ----------
    network
        The transformers model for sequence classification, adapters included.
    model_config
        What was built.
    backbone_dir
        Folder of the backbone's weights.
    """

    def __init__(self, network: nn.Module, *, config: ModelConfig, backbone_dir: Path) -> None:
        super().__init__()
        self.network = network
        self.model_config = config
        self.backbone_dir = backbone_dir
        self.is_decoder = hasattr(self._base, "score")
        self.can_pack = attends_by_rows(self._base.config)
        self.checkpointing: Checkpointing = "none"

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return logits for a collated batch.

        Parameters
        ----------
        batch
            What :func:`tiewise.models.attention.collate` returns.

        Returns
        -------
        Tensor
            float32 (float64 for a float64 backbone) `(n_rows, 3)`: A, B, tie.

        Raises
        ------
        ModelError
            When rows are packed for a backbone that takes rectangles only, or a row is longer
            than the backbone's table of positions.
        """
        self._check_batch(batch)
        inputs: dict[str, Any] = {name: batch[name] for name in batch if name != "lengths"}
        if self.model_config.head == "responses":
            encoder = getattr(self._base, self._base.base_model_prefix)
            states = encoder(**inputs).last_hidden_state
            return self.head(compare_responses(states, batch).to(working_dtype(self.model_config)))  # type: ignore[no-any-return]
        if not self.is_decoder:
            return self._base(**inputs).logits.to(working_dtype(self.model_config))  # type: ignore[no-any-return]
        inputs.pop("token_type_ids", None)
        return self.head(self._pooled(inputs, batch))  # type: ignore[no-any-return]

    def _pooled(self, inputs: dict[str, Any], batch: dict[str, Tensor]) -> Tensor:
        """Return each row's last token after the last norm, `(n_rows, hidden)`."""
        decoder = getattr(self._base, self._base.base_model_prefix)
        if self.can_pack:
            inputs.pop("attention_mask", None)
            spans = find_spans(batch)
            inputs |= {"spans": spans, "last": last_only(spans, last_index(batch))}
            return decoder(**inputs, use_cache=False).last_hidden_state[0]  # type: ignore[no-any-return]
        states = decoder(**inputs, use_cache=False).last_hidden_state
        return states.flatten(0, 1)[last_index(batch)]  # type: ignore[no-any-return]

    def _check_batch(self, batch: dict[str, Tensor]) -> None:
        if "position_ids" in batch and not self.can_pack:
            raise ModelError(
                f"{self._base.config.model_type} cannot take packed rows. Use --layout sorted."
            )
        longest, most = int(batch["lengths"].max()), self.n_positions
        if most is not None and longest > most:
            raise ModelError(
                f"A row has {longest} tokens, but {self.model_config.backbone} has positions "
                f"for {most}. Give --max-length {most} or less."
            )

    @property
    def _base(self) -> Any:
        """The transformers model inside the peft wrapper, if there is one."""
        network: Any = self.network
        is_wrapped = hasattr(network, "get_base_model")
        return network.get_base_model() if is_wrapped else network

    @property
    def config(self) -> Any:
        """The transformers configuration, under the name that the Trainer looks for."""
        return self._base.config

    @property
    def n_positions(self) -> int | None:
        """Most tokens of a row, where the backbone keeps a table of positions."""
        return count_positions(self._base)

    @property
    def head(self) -> nn.Module:
        """The layer that gives the logits."""
        return self._base.score if self.is_decoder else self._base.classifier  # type: ignore[no-any-return]

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes that FSDP shards one by one, under the name that accelerate looks for."""
        return sorted({type(layer).__name__ for layer in self.layers})

    @property
    def layers(self) -> nn.ModuleList:
        """The backbone's layers, first to last."""
        return find_layers(self._base)

    @property
    def device(self) -> torch.device:
        """Where the head is."""
        return next(self.head.parameters()).device

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and tensors that training changes."""
        return ((name, part) for name, part in self.named_parameters() if part.requires_grad)

    def trainable_summary(self) -> dict[str, int]:
        """Return counts: `n_trainable` and `n_total` numbers, `n_tensors` trained, `n_layers`."""
        trainable = [part.numel() for _, part in self.trainable_parameters()]
        return {
            "n_trainable": sum(trainable),
            "n_total": sum(_count(part) for part in self.parameters()),
            "n_tensors": len(trainable),
            "n_layers": len(self.layers),
        }

    def parameter_groups(self, train: TrainConfig) -> list[dict[str, Any]]:
        """Return the optimiser's groups; see `group_parameters`."""
        return group_parameters(self.trainable_parameters(), train)

    def autocast(self) -> torch.autocast:
        """Return the context of a training step's forward pass: half precision on CUDA alone."""
        dtype = getattr(torch, self.model_config.dtype)
        is_mixed = self.device.type == "cuda" and dtype in {torch.bfloat16, torch.float16}
        return torch.autocast(self.device.type, dtype if is_mixed else None, enabled=is_mixed)

    def checkpoint(self, mode: Checkpointing) -> None:
        """Choose which layers recompute their activations in the backward pass."""
        checkpoint_layers(self._base, mode)
        self.checkpointing = mode

    def save(self, adapter_dir: Path | str) -> None:
        """Write what was trained, as safetensors and JSON; see :mod:`tiewise.models.adapters`."""
        adapters.save_adapter(self.network, self.model_config, self.backbone_dir, Path(adapter_dir))


def build_classifier(
    config: ModelConfig,
    backbone_dir: Path | str,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    checkpointing: Checkpointing = "none",
) -> PairClassifier:
    """Build a classifier with fresh adapters and a fresh head.

    Parameters
    ----------
    config
        Which backbone, adapters and head.
    backbone_dir
        What :func:`tiewise.models.backbones.resolve_backbone` returned.
    seed
        Seed of the first values; equal seeds, equal values, and torch's own state is untouched.
    device
        Where the classifier lives.
    checkpointing
        Which layers recompute their activations: `none`, `trainable`, `all`.

    Raises
    ------
    ModelError
        When the configuration does not fit the backbone.
    """
    if dropped := find_dropped_head(Path(backbone_dir)):
        _log.info("%s is %s: its head is left out, its backbone is used.", config.backbone, dropped)
    network = load_network(config, Path(backbone_dir), device=device, seed=seed)
    network = add_adapters(network, config, seed=seed)
    return _finish(network, config, Path(backbone_dir), checkpointing)


def load_classifier(
    adapter_dir: Path | str,
    backbone_dir: Path | str,
    *,
    device: torch.device | str = "cpu",
    is_trainable: bool = False,
    checkpointing: Checkpointing = "none",
) -> PairClassifier:
    """Load what :meth:`PairClassifier.save` wrote; the same rows give the same bits.

    Raises
    ------
    ModelError
        When a file is missing, damaged or could run code, tensors are missing or left over, the
        head has other classes, or the adapter belongs to another backbone.
    """
    adapter_dir, backbone_dir = Path(adapter_dir), Path(backbone_dir)
    config = adapters.read_config(adapter_dir, backbone_dir)
    network = load_network(config, backbone_dir, device=device, seed=0)
    network = adapters.restore_adapter(network, config, adapter_dir)
    if not is_trainable:
        network.requires_grad_(requires_grad=False)
    classifier = _finish(network, config, backbone_dir, checkpointing)
    return classifier.train(is_trainable)


def _finish(
    network: nn.Module, config: ModelConfig, backbone_dir: Path, checkpointing: Checkpointing
) -> PairClassifier:
    classifier = PairClassifier(network, config=config, backbone_dir=backbone_dir)
    if classifier.can_pack:
        replace_norms(network)
        pool_last_layer(classifier.layers[-1])
    classifier.checkpoint(checkpointing)
    return classifier


def _count(parameter: nn.Parameter) -> int:
    """Return a tensor's numbers; 4-bit tensors hold two in a byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())
