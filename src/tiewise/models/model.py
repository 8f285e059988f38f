"""The pair classifier: a backbone, its adapters and a head with three classes."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tiewise.config import ModelConfig, TrainConfig
from tiewise.errors import ModelError
from tiewise.models.adapters import save_adapter
from tiewise.models.attention import attends_by_rows, find_spans, last_index, last_only
from tiewise.models.heads import compare_responses, head_name
from tiewise.models.loading import (
    Checkpointing,
    checkpoint_layers,
    count_positions,
    find_layers,
    working_dtype,
)
from tiewise.tokens.template import build_template
from tiewise.tokens.tokenizer import load_tokenizer

_HEAD = re.compile(r"(?:^|\.)(score|classifier)\.")


class PairClassifier(nn.Module):
    """Logits of A, B and tie for rows of tokens.

    A decoder's row is pooled at its last token by position, so padding tokens are never
    searched for; an encoder pools as transformers does. The head `responses` reads the mean states
    of both responses in their place. `network` is the transformers model for
    sequence classification, adapters included. The head is trained, saved and loaded with the
    adapters, is never quantized, and computes in float32 or better.
    """

    def __init__(self, network: nn.Module, model_config: ModelConfig, backbone_dir: Path) -> None:
        super().__init__()
        self.network = network
        self.model_config = model_config
        self.backbone_dir = backbone_dir
        self.is_decoder = head_name(self._base) == "score"
        self.can_pack = attends_by_rows(self.config)
        self.checkpointing: Checkpointing = "none"

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the logits of a batch of :func:`tiewise.models.attention.collate`, in any layout.

        They are float32 (float64 for a float64 backbone), `(n_rows, 3)`: A, B, tie.
        """
        self._check_batch(batch)
        inputs, dtype = self._inputs(batch), working_dtype(self.model_config)
        if not self.is_decoder and not self._compares:
            return self._base(**inputs).logits.to(dtype)  # type: ignore[no-any-return]
        states = self._body(**inputs).last_hidden_state
        if self._compares:
            with torch.autocast(states.device.type, enabled=False):
                return self.head(compare_responses(states.to(dtype), batch, self.slot))  # type: ignore[no-any-return]
        if self.can_pack:  # the last layer returned the last tokens only
            return self.head(states[0])  # type: ignore[no-any-return]
        return self.head(states.flatten(0, 1)[last_index(batch)])  # type: ignore[no-any-return]

    def _inputs(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """Return what the backbone's forward takes."""
        inputs: dict[str, Any] = {name: batch[name] for name in batch if name != "lengths"}
        if self.is_decoder:
            inputs.pop("token_type_ids", None)
            inputs["use_cache"] = False
        if self.can_pack:
            inputs.pop("attention_mask", None)
            inputs["spans"] = find_spans(batch)
            if not self._compares:
                inputs["last"] = last_only(inputs["spans"], last_index(batch))
        return inputs

    @property
    def _compares(self) -> bool:
        """Whether the head reads the mean states of both responses, and not the pooled state."""
        return self.model_config.head == "responses"

    @functools.cached_property
    def slot(self) -> int:
        """Id of the template's special token before each response."""
        template = build_template(load_tokenizer(self.backbone_dir))
        return template.special_tokens.response_b[0]

    def _check_batch(self, batch: dict[str, Tensor]) -> None:
        if "position_ids" in batch and not self.can_pack:
            raise ModelError(
                f"--layout is packed, but {self.config.model_type} accepts padded batches only. "
                "Use --layout sorted."
            )
        longest, most = int(batch["lengths"].max()), self.n_positions
        if most is not None and longest > most:
            raise ModelError(
                f"A row has {longest} tokens; expected at most {most}, the positions of "
                f"{self.model_config.backbone}. Use --max-length {most} or less."
            )

    @property
    def _base(self) -> Any:
        """The transformers model, without the peft wrapper if there is one."""
        network: Any = self.network
        return network.get_base_model() if hasattr(network, "get_base_model") else network

    @property
    def _body(self) -> Any:
        """The transformers model without its head."""
        return getattr(self._base, self._base.base_model_prefix)

    @property
    def config(self) -> Any:
        """The transformers configuration, under the name that the Trainer expects."""
        return self._base.config

    @property
    def n_positions(self) -> int | None:
        """Longest row that the backbone's table of positions allows; None without a table."""
        return count_positions(self._base)

    @property
    def head(self) -> nn.Module:
        """The layer that returns the logits."""
        return getattr(self._base, head_name(self._base))  # type: ignore[no-any-return]

    @property
    def _no_split_modules(self) -> list[str]:
        """Classes that FSDP shards one by one, under the name that accelerate expects."""
        return sorted({type(layer).__name__ for layer in self.layers})

    @property
    def layers(self) -> nn.ModuleList:
        """The backbone's layers, first to last."""
        return find_layers(self._base)

    @property
    def device(self) -> torch.device:
        """Device of the head."""
        return next(self.head.parameters()).device

    def trainable_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield the names and tensors that training changes."""
        return ((name, part) for name, part in self.named_parameters() if part.requires_grad)

    def trainable_summary(self) -> dict[str, int]:
        """Return counts: parameters `n_trainable` of `n_total`, trained `n_tensors`, `n_layers`."""
        trainable = [part.numel() for _, part in self.trainable_parameters()]
        return {
            "n_trainable": sum(trainable),
            "n_total": sum(_count(part) for part in self.parameters()),
            "n_tensors": len(trainable),
            "n_layers": len(self.layers),
        }

    def parameter_groups(self, train_config: TrainConfig) -> list[dict[str, Any]]:
        """Return the optimizer's parameter groups, in the order their tensors first appear.

        The head uses `head_learning_rate`, or `learning_rate` when that is None. `weight_decay`
        applies to matrices; vectors (biases, norms) have none.
        """
        rate, head_rate = train_config.learning_rate, train_config.head_learning_rate
        groups: dict[tuple[float, float], dict[str, Any]] = {}
        for name, part in self.trainable_parameters():
            own_rate = head_rate if head_rate and _HEAD.search(name) else rate
            decay = train_config.weight_decay if part.ndim > 1 else 0.0
            new_group = {"params": [], "lr": own_rate, "weight_decay": decay}
            groups.setdefault((own_rate, decay), new_group)["params"].append(part)
        return list(groups.values())

    def autocast(self) -> torch.autocast:
        """Return the context of a training step's forward pass: half precision only on CUDA."""
        dtype = getattr(torch, self.model_config.dtype)
        is_mixed = self.device.type == "cuda" and dtype in {torch.bfloat16, torch.float16}
        return torch.autocast(self.device.type, dtype if is_mixed else None, enabled=is_mixed)

    def checkpoint(self, mode: Checkpointing) -> None:
        """Set which layers recompute their activations in the backward pass."""
        checkpoint_layers(self._base, mode)
        self.checkpointing = mode

    def save(self, adapter_dir: Path | str, *, has_ties: bool = True) -> None:
        """Write the trained tensors; see :func:`tiewise.models.adapters.save_adapter`."""
        folder = Path(adapter_dir)
        save_adapter(self.network, self.model_config, self.backbone_dir, folder, has_ties=has_ties)


def _count(parameter: nn.Parameter) -> int:
    """Count the numbers of a tensor; 4-bit tensors hold two per byte."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(state.shape.numel())
