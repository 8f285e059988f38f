"""Read responses with a frozen backbone, and keep the means of its hidden states.

Each distinct response is read once, after its prompt, by the first three quarters of the backbone's
layers. Nothing is trained. A response has the mean of its tokens' states after a quarter, a half
and three quarters of all layers. The last ones, which choose the next word, describe it less well.
"""

from __future__ import annotations

import functools
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import tokenizers
import torch
import transformers

from tiewise.config import ModelConfig, public_name
from tiewise.console import progress_bar
from tiewise.data.pairs import TEXT_COLUMNS
from tiewise.errors import ModelError, NumericsError
from tiewise.files import digest_json
from tiewise.models.backbones import backbone_digest, resolve_backbone, settings_digest
from tiewise.models.loading import count_positions, find_layers, load_body
from tiewise.tokens.array_cache import load_or_compute
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import Template, build_template
from tiewise.tokens.tokenizer import load_tokenizer

FORMAT = 1
"""Version of the states; a change of the code that changes them raises it."""
MAX_LENGTH = 512
"""Most tokens of a prompt with one response; both are cut in the middle, with equal shares."""
_DEPTHS = (0.25, 0.5, 0.75)
_log = logging.getLogger(__name__)
FloatArray = npt.NDArray[np.float32]


class StateReader:
    """Reader of responses with the backbone `config.states`, in `config.dtype`.

    With `keeps_states`, they are cached in `cache_dir`, a file for each response, so that all folds
    and later processes share them. The backbone is loaded for the first response that is not in the
    cache.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        cache_dir: Path,
        device: torch.device | str = "cpu",
        keeps_states: bool = True,
    ) -> None:
        self.config, self.device = config, device
        self.states_dir = cache_dir if keeps_states else None
        self._one = threading.Lock()  # the hooks of a forward pass are those of its thread
        self.path = resolve_backbone(
            str(config.states),
            revision=config.revision,
            sha256=config.backbone_sha256,
            cache_dir=cache_dir,
        )

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of everything but the texts that decides the states."""
        weights = [backbone_digest(self.path), settings_digest(self.path)]
        template = [self._tokenizer.digest, self._template.digest]
        return digest_json([FORMAT, _DEPTHS, self.config.dtype, *weights, *template])

    def load(self) -> None:
        """Load the backbone, unless it is loaded."""
        with self._one:
            self._body  # noqa: B018 - a cached property

    def read(self, pairs: pd.DataFrame) -> FloatArray:
        """Return the states of both responses of n pairs: float32, shape (n, 2, 3, hidden).

        Equal responses to equal prompts have equal states, bit for bit, whatever the other rows
        are. NumericsError is raised for states that are not finite.
        """
        prompts = pairs[TEXT_COLUMNS[0]].tolist()
        sides = [list(zip(prompts, pairs[name], strict=True)) for name in TEXT_COLUMNS[1:]]
        versions = [library.__version__ for library in (transformers, tokenizers, torch)]
        made_by = [self.digest, *versions, torch.device(self.device).type]
        keys = [[digest_json([*made_by, *texts]) for texts in side] for side in sides]
        distinct = {
            key: texts
            for own, side in zip(keys, sides, strict=True)
            for key, texts in zip(own, side, strict=True)
        }
        if self.states_dir is not None:  # a fit; a log without a progress bar would be silent
            _log.info(
                "%s reads %s responses, except those in %s.",
                public_name(str(self.config.states)), f"{len(distinct):,}", self.states_dir,
            )  # fmt: skip
        found = np.empty((0,), dtype=np.float32)
        shown = {"unit": "response", "delay": 2, "leave": False}
        with progress_bar(len(distinct), name="reading", **shown) as bar:  # type: ignore[arg-type]
            for place, (key, texts) in enumerate(distinct.items()):
                compute = functools.partial(self._compute, *texts)
                one = load_or_compute(self.states_dir, key, compute)["states"]
                if not place:
                    found = np.empty((len(distinct), *one.shape), dtype=np.float32)
                found[place] = one  # a copy: each array from the cache keeps its file open
                bar.update()
        number = {key: row for row, key in enumerate(distinct)}
        rows = [[number[key] for key in own] for own in keys]
        states: FloatArray = found[np.array(rows).T]
        return states

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs; it loads the backbone itself."""
        return {k: v for k, v in vars(self).items() if k not in {"_one", "_body"}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _one=threading.Lock())

    @functools.cached_property
    def _tokenizer(self) -> Any:
        return load_tokenizer(self.path)

    @functools.cached_property
    def _template(self) -> Template:
        return build_template(self._tokenizer, max_length=MAX_LENGTH)

    @functools.cached_property
    def _body(self) -> tuple[Any, list[int]]:
        """The backbone, and the numbers of the layers after which states are kept."""
        body, n_layers = load_body(
            self.path, dtype=self.config.dtype, share=_DEPTHS[-1], device=self.device
        )
        return body, [max(1, round(depth * n_layers)) for depth in _DEPTHS]

    def _compute(
        self, prompt: list[str | None], response: list[str | None]
    ) -> dict[str, npt.NDArray[Any]]:
        """Return the states of one response, float32 (3, hidden)."""
        with self._one:
            body, depths = self._body
        template = self._template
        n_positions = count_positions(body)
        if n_positions is not None and n_positions < MAX_LENGTH:
            template = build_template(self._tokenizer, max_length=n_positions)
        pair = pd.DataFrame({"prompt": [prompt], "response_a": [response], "response_b": [[""]]})
        rows = token_rows(pair, self._tokenizer, template, cache_dir=None)
        with self._one:
            kept = _keep_states(body, depths, _inputs(rows, body.config, self.device))
        span = find_response(rows.values, template)
        states = torch.stack([part[0, span].float().mean(0) for part in kept]).cpu().numpy()
        if not np.isfinite(states).all():
            raise NumericsError(
                f"The hidden states of {self.config.states} are not finite in {self.config.dtype} "
                f"for the response {str(response)[:40]!r}. Use --dtype float32."
            )
        return {"states": states}


def find_response(ids: npt.NDArray[np.int32], template: Template) -> slice:
    """Return the place of response A in the ids of a row whose response B is empty.

    It begins at the last token of A's label, so an empty response has a token too.
    """
    special = template.special_tokens
    label = special.response_a
    n_before = int(special.prompt[0] == label[0])  # the prompt's slot may be the same token
    start = int(np.flatnonzero(ids == label[0])[n_before]) + len(label) - 1
    return slice(start, len(ids) - len(special.response_b) - len(special.end))


def _keep_states(body: Any, depths: list[int], inputs: dict[str, Any]) -> list[torch.Tensor]:
    """Return the states after some layers, `(1, n_tokens, hidden)` each, before any final norm."""
    kept: list[torch.Tensor] = []

    def keep(_: Any, __: Any, output: Any) -> None:
        kept.append(output[0] if isinstance(output, tuple) else output)

    layers = find_layers(body)
    hooks = [layers[depth - 1].register_forward_hook(keep) for depth in depths]
    try:
        with torch.inference_mode():
            body(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    expected = (*inputs["input_ids"].shape, body.config.hidden_size)
    if any(getattr(part, "shape", None) != expected for part in kept):
        raise ModelError(
            f"{body.config.model_type}: its layers do not return states of shape {expected}. Use a "
            "decoder or an encoder of text such as SmolLM2 or BERT."
        )
    return kept


def _inputs(rows: TokenRows, settings: Any, device: torch.device | str) -> dict[str, Any]:
    inputs: dict[str, Any] = {"input_ids": torch.as_tensor(rows.values[None].astype(np.int64))}
    # A decoder may have the tokenizer of an encoder, and no table of types.
    n_types = getattr(settings, "type_vocab_size", None) or 0
    if rows.type_ids is not None and rows.type_ids.max(initial=0) < n_types:
        inputs["token_type_ids"] = torch.as_tensor(rows.type_ids[None].astype(np.int64))
    return {name: values.to(device) for name, values in inputs.items()}
