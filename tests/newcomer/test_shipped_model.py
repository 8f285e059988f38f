"""The package answers before anything is fitted."""


def test_score_needs_no_run(type_command):
    """`tw.score` returns three probabilities from the shipped model, without torch."""
    code = "import sys, tiewise as tw; print(*tw.score('Say hi', 'Hi!', 'No.'), 'torch' in "
    code += "sys.modules)"
    *probs, has_torch = type_command(f'python -c "{code}"').out.split()
    assert len(probs) == 3
    assert abs(sum(map(float, probs)) - 1) < 1e-9
    assert has_torch == "False"
