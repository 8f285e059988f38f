"""A judge that a server computes: ids of tokens go to ``/classify``, as vLLM offers it.

The rows are built here, from template and tokenizer of the exported folder that the server has
loaded: a server that gets text builds other rows and answers with wrong probabilities. Before the
first pairs, the answers to the rows that are stored in the export are compared with those of the
export.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import urllib3
from scipy.special import softmax

from tiewise.errors import ModelError
from tiewise.files import read_json
from tiewise.models.predictions import check_finite, tabulate_pairs
from tiewise.runs.manifest import verify_manifest
from tiewise.tokens.rows import TokenRows, find_distinct
from tiewise.tokens.template import Template
from tiewise.tokens.tokenizer import TOKENIZER_FOLDER, load_tokenizer

TOKEN_VARIABLE = "TIEWISE_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with the bearer token of a server."""

N_CONNECTIONS = 2
"""One request is computed while the next one waits."""

_ROWS_PER_REQUEST, _TOKENS_PER_REQUEST = 64, 16_384
_TIMEOUT = urllib3.Timeout(connect=10, read=300)
_RETRIES = urllib3.Retry(
    total=6, backoff_factor=0.25, allowed_methods=None, respect_retry_after_header=False
)
_BUSY = {429, 502, 503, 504}
_PAUSE, _PATIENCE = 1.0, 300.0
"""Seconds before a busy server is asked again, and after which it is not asked again."""

_TOLERANCE = {"float64": 1e-4, "float32": 1e-4}
_ROUGH_TOLERANCE = 0.02
"""Largest difference of a probability in float32 and in 16 bits, where batches differ by 0.01."""

_ROUNDED = 0.05
Floats = npt.NDArray[np.float64]


class ServedJudge:
    """The classifier behind `address`, such as ``http://127.0.0.1:8000``.

    `folder` is the export that the server has loaded. ModelError is raised when it is damaged, and
    at the first prediction when the server does not answer or scores the stored rows differently.
    """

    def __init__(self, address: str, folder: Path) -> None:
        damage = verify_manifest(folder, allow_extra_files=True)
        if damage is not None:
            raise ModelError(f"{folder}: {damage}. Name the folder that tiewise export wrote.")
        self.address, self.folder = address.rstrip("/"), folder
        self.template = Template.from_dict(read_json(folder / "template.json"))
        self.tokenizer = load_tokenizer(folder / TOKENIZER_FOLDER)
        if self.template.special_tokens.type_ids is not None:
            raise ModelError(
                f"{folder}: rows of this encoder have token types, which /classify does not take. "
                "Load the folder itself: Judge.from_pretrained(folder)."
            )
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = urllib3.PoolManager(
            maxsize=N_CONNECTIONS, block=True, retries=_RETRIES, timeout=_TIMEOUT, headers=headers
        )

    def predict(self, pairs: pd.DataFrame, *, swap: bool | None = None) -> pd.DataFrame:
        """Predict pairs; see :class:`tiewise.judges.kinds.PairJudge`. None means both orders."""
        return tabulate_pairs(
            self.score_rows, pairs, self.tokenizer, self.template, both_orders=swap is not False
        )

    def score_rows(self, rows: TokenRows, *, names: Sequence[object]) -> Floats:
        """Return the logits of n rows of tokens, float64 `(n, 3)`; equal rows are sent once."""
        answers_probs = self._gives_probs
        representatives, inverse = find_distinct(rows)
        distinct = [rows.row(row).tolist() for row in representatives.tolist()]
        values = self._classify(distinct)[inverse]
        with np.errstate(divide="ignore"):  # a probability of 0 is reported as not finite
            logits = np.log(values) if answers_probs else values
        return check_finite(logits, names)

    @functools.cached_property
    def _gives_probs(self) -> bool:
        """Whether the answers are probabilities, not logits; also compares the stored rows."""
        facts = read_json(self.folder / "export.json")
        if "probes" not in facts:
            raise ModelError(
                f"{self.folder} has no rows to compare a server with. Export it again."
            )
        found = self._classify([probe["input"] for probe in facts["probes"]])
        gives_probs = bool((found >= 0).all() and np.allclose(found.sum(axis=1), 1, atol=1e-3))
        probs = found if gives_probs else softmax(found, axis=1)
        drift = float(np.abs(probs - [probe["probs"] for probe in facts["probes"]]).max())
        if not drift <= _TOLERANCE.get(facts["dtype"], _ROUGH_TOLERANCE):
            raise ModelError(
                f"{self.address}: probabilities of the {len(found)} rows stored in {self.folder} "
                f"differ by up to {drift:.2g} from those of the export. {_explain(drift, facts)}"
            )
        return gives_probs

    def _classify(self, rows: list[list[int]]) -> Floats:
        """Return what the server answers for rows of ids: float64 `(n, 3)`, in order."""
        with ThreadPoolExecutor(N_CONNECTIONS) as pool:
            return np.concatenate([np.zeros((0, 3)), *pool.map(self._classify_part, _cut(rows))])

    def _classify_part(self, rows: list[list[int]]) -> Floats:
        url, body = f"{self.address}/classify", {"input": rows, "use_activation": False}
        try:
            answer = self._ask(url, body)
        except urllib3.exceptions.HTTPError as error:
            raise ModelError(
                f"{url} does not answer: {error}. Start the server, or correct the address."
            ) from error
        if answer.status != 200:
            text = answer.data.decode(errors="replace")[:300]
            raise ModelError(f"{url} refuses the rows with status {answer.status}: {text}")
        try:
            values = np.array(list(_read_answer(json.loads(answer.data))), dtype=np.float64)
        except (ValueError, KeyError, TypeError):
            values = np.zeros(0)
        if values.shape != (len(rows), 3):
            raise ModelError(
                f"{url} did not answer with 3 numbers for each of {len(rows)} rows. Is it a "
                "classifier that tiewise export wrote, served with --convert classify?"
            )
        return values

    def _ask(self, url: str, body: dict[str, Any]) -> Any:
        """Return the answer of a server; one that is busy is asked again for some minutes."""
        end = time.monotonic() + _PATIENCE
        while True:
            answer = self._http.request("POST", url, json=body)
            if answer.status not in _BUSY or time.monotonic() >= end:
                return answer
            time.sleep(_PAUSE)


def _cut(rows: list[list[int]]) -> list[list[list[int]]]:
    """Cut rows into requests; a row that is longer than a request should be gets its own."""
    parts: list[list[list[int]]] = []
    n_tokens = 0
    for row in rows:
        n_tokens += len(row)
        if not parts or len(parts[-1]) == _ROWS_PER_REQUEST or n_tokens > _TOKENS_PER_REQUEST:
            parts.append([])
            n_tokens = len(row)
        parts[-1].append(row)
    return parts


def _read_answer(answer: Any) -> Iterator[Any]:
    for entry in sorted(answer["data"], key=lambda entry: int(entry["index"])):
        yield entry["probs"]


def _explain(drift: float, facts: dict[str, Any]) -> str:
    if drift < _ROUNDED and facts["dtype"] in _TOLERANCE:
        return f"The server rounds to 16 bits: start it with --dtype {facts['dtype']}."
    return (
        "It serves another model or another export, or it leaves out a part of the backbone, such "
        "as soft-capping. Serve this folder."
    )
