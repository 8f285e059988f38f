"""A local web page to compare responses: both orders of each pair, truncation, and a ranking.

Gradio (the extra ``demo``) draws the page. It is served on 127.0.0.1 behind
:mod:`tiewise.serving.guard`, sends nothing to other machines and stores nothing.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import ConfigError, PairsError, RunError, TiewiseError
from tiewise.judges.judge import arrange_probs, pair_responses, predict
from tiewise.judges.response_ranking import rank_answers
from tiewise.serving.guard import Guard

MAX_CHARS = 40_000
LETTERS = "ABCDEFGH"
"""Names of the responses; their number is the largest number of responses."""

_HOST = "127.0.0.1"
_ABOUT = """# Which response would people prefer?
Write a prompt and two to five responses. Each pair is scored in both orders and averaged. Nothing
leaves this computer."""
_ORDERS = {
    order: [f"{name}_{order}" for name in PROB_COLUMNS] for order in ("given", "swapped")
} | {"average": PROB_COLUMNS}


@dataclass(frozen=True)
class Judgement:
    """Prediction for the responses to one prompt."""

    orders: pd.DataFrame
    """For each pair of responses one row per order and one for their average, as texts."""

    truncation: str
    """Sentence that says what did not fit into the rows of the model."""

    ranking: pd.DataFrame
    """Rank, response, interval of the rank and P(best), best first; empty for two responses."""


def serve(run: Path | None, *, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page on 127.0.0.1 until interrupted.

    `run` is the folder of a run, or None for the model in the package; `port` 0 is any free port.
    `announce` is called with the address once the page is served. RunError is raised if Gradio is
    not installed, ConfigError if the port is in use.
    """
    app = build_app(run)
    import uvicorn

    listener = _listen(port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,  # a page that is open in a browser keeps its connection
    )
    address = f"http://{_HOST}:{listener.getsockname()[1]}/"
    announce(f"{address} (reachable only from this machine; stop with Ctrl+C)")
    uvicorn.Server(config).run(sockets=[listener])


def build_app(run: Path | None) -> Guard:
    """Return the protected page as an ASGI application; RunError if Gradio is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported
    try:
        import gradio
        from fastapi import FastAPI
    except ImportError as error:
        raise RunError("The demo needs Gradio: run pip install 'tiewise[demo]'.") from error
    page = _build_page(gradio, run)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    return Guard(gradio.mount_gradio_app(app, page, path="/", footer_links=[]))


def judge_responses(prompt: str, responses: Sequence[str], *, run: Path | None = None) -> Judgement:
    """Compare two to eight responses to a prompt.

    Blank responses are skipped, and the others keep their letters; PairsError is raised if fewer
    than two have text. `run` is the folder of a run, or None for the model in the package.

    Examples
    --------
    >>> found = judge_responses("2 + 2?", ["4", "", "I can't say."])
    >>> found.orders["order"].tolist()
    ['A, C', 'C, A', 'average']
    """
    texts = {name: text for name, text in zip(LETTERS, responses, strict=False) if text.strip()}
    if len(texts) < 2:
        raise PairsError("Write at least two responses.")
    pairs = itertools.combinations(texts, 2)
    table = predict(pair_responses(prompt, list(texts.values())), run=run, swap=True)
    orders = [
        _list_orders(pair, row) for pair, (_, row) in zip(pairs, table.iterrows(), strict=True)
    ]
    ranking = _rank(list(texts), table) if len(texts) > 2 else pd.DataFrame()
    return Judgement(pd.concat(orders), _describe_truncation(table), ranking)


def _build_page(gradio: Any, run: Path | None) -> Any:
    def answer(prompt: str, *responses: str) -> tuple[str, str, str]:
        try:
            found = judge_responses(prompt, responses, run=run)
        except TiewiseError as error:
            raise gradio.Error(str(error)) from error
        ranking = "" if found.ranking.empty else _to_html(found.ranking, "Ranking")
        return _to_html(found.orders, "Each pair in both orders"), found.truncation, ranking

    with gradio.Blocks(title="tiewise") as page:
        gradio.Markdown(_ABOUT)
        prompt = gradio.Textbox(label="Prompt", lines=3, max_length=MAX_CHARS, elem_id="prompt")
        with gradio.Row():
            responses = [
                gradio.Textbox(
                    label=f"Response {name}",
                    lines=6,
                    max_length=MAX_CHARS,
                    elem_id=f"response-{name}",
                )
                for name in LETTERS[:5]
            ]
        button = gradio.Button("Judge", variant="primary", elem_id="judge")
        orders = gradio.HTML(elem_id="orders")
        truncation = gradio.Textbox(label="Truncation", interactive=False, elem_id="truncation")
        ranking = gradio.HTML(elem_id="ranking")
        shown = [orders, truncation, ranking]
        button.click(answer, [prompt, *responses], shown, api_name=False)
    return page


def _to_html(table: pd.DataFrame, caption: str) -> str:
    return f"<h3>{caption}</h3>{table.to_html(index=False, escape=True, border=0, justify='left')}"


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_HOST, port))
    except (OSError, OverflowError) as error:
        raise ConfigError(
            f"--port is {port}: {error}. Choose another port, or 0 for any free port."
        ) from error
    listener.listen()
    return listener


def _list_orders(pair: tuple[str, str], row: pd.Series) -> pd.DataFrame:
    """Return the probabilities of a pair in both orders and on average, as texts."""
    first, second = pair
    names = {"given": f"{first}, {second}", "swapped": f"{second}, {first}", "average": "average"}
    lines = []
    for order, columns in _ORDERS.items():
        # The model in the package is symmetric by construction: it has no columns per order.
        probs = row[columns if columns[0] in row else PROB_COLUMNS]
        named = zip(("P(first wins)", "P(second wins)", "P(tie)"), probs, strict=True)
        shares = {name: f"{prob:.3f}" for name, prob in named}
        lines.append({"responses": f"{first} or {second}", "order": names[order], **shares})
    return pd.DataFrame(lines)


def _describe_truncation(table: pd.DataFrame) -> str:
    if "n_truncated" not in table:
        return "Nothing was truncated: this model uses the whole text."
    n_lost = table["n_truncated"].to_numpy()
    if not n_lost.any():
        return (
            f"Nothing was truncated; the longest row has {int(table['n_tokens'].max()):,} tokens."
        )
    return (
        f"{int((n_lost > 0).sum())} of {len(n_lost)} rows were truncated, by up to "
        f"{int(n_lost.max()):,} tokens, shared fairly between the responses."
    )


def _rank(names: list[str], table: pd.DataFrame) -> pd.DataFrame:
    """Rank responses by the probabilities of all their pairs."""
    ranking = rank_answers(arrange_probs(table, len(names)))
    lines = [
        {
            "rank": int(ranking.places[k]),
            "response": names[k],
            "95 % interval": f"{ranking.place_low[k]} to {ranking.place_high[k]}",
            "P(best)": f"{ranking.prob_best[k]:.2f}",
        }
        for k in ranking.order.tolist()
    ]
    return pd.DataFrame(lines)
