"""A local web page to compare responses: each pair once, both orders on request, and a ranking.

Gradio (the extra ``demo``) draws the page. It is served on 127.0.0.1 behind
:mod:`tiewise.serving.guard`, sends nothing to other machines and stores nothing.
"""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.data.labels import PROB_COLUMNS
from tiewise.errors import RunError, TiewiseError
from tiewise.runs.folder import RunFolder
from tiewise.serving.demo.judgement import LETTERS, MAX_CHARS, Judgement, judge_responses
from tiewise.serving.demo.models import Model, list_models
from tiewise.serving.guard import HOSTS, Guard, listen

_HOST = HOSTS[0]
_ABOUT = """# Which response would people prefer?
Click an example, or write a prompt and two to five responses. Nothing leaves this computer."""
_SYMMETRIC = "This model gives the same probabilities in both orders, by construction."
_EXAMPLES = {
    "A short right answer and a long one": (
        "What is the capital of Australia?",
        "Canberra.",
        "The capital of Australia is **Canberra**. It was chosen in 1908 as a compromise between "
        "Sydney and Melbourne, and lies in the Australian Capital Territory.",
    ),
    "A fluent wrong answer": (
        "How many legs does a spider have?",
        "Eight.",
        "Spiders have six legs, like all insects. The legs are attached to the thorax, in three "
        "pairs, and each of them has seven segments.",
    ),
    "An answer and a refusal": (
        "Write a two-line poem about rain.",
        "Soft rain is drumming on the roof tonight,\nand every street lamp wears a halo of light.",
        "I'm sorry, but I can't help with that.",
    ),
    "Two answers alike": (
        "Translate to French: Good morning, how are you?",
        "Bonjour, comment allez-vous ?",
        "Bonjour, comment vas-tu ?",
    ),
}
_CSS = """
#judge { background: #0072b2; color: #ffffff; }
.result table { width: 100%; border-collapse: collapse; margin-bottom: 1rem; }
.result th, .result td { text-align: left; padding: 0.35rem 0.6rem !important; }
.result .wide { overflow-x: auto; }
.result .pair { margin-bottom: 1rem; }
.result .bar { display: flex; height: 0.6rem; gap: 2px; margin-top: 0.3rem; }
.result .bar span { min-width: 1px; }
.result .first { background: #0072b2; } .result .second { background: #d55e00; }
.result .tie { background: #009e73; }
.result p { margin: 0; overflow-wrap: anywhere; }
.result .problem { border-left: 4px solid #d55e00; padding-left: 0.7rem; }
"""
_MAX_BYTES = 2 * 1024 * 1024  # a prompt and five responses of the largest length, as JSON
_log = logging.getLogger(__name__)


def serve(
    run: RunFolder | None, artifacts_dir: Path, *, port: int, announce: Callable[[str], None]
) -> None:
    """Serve the page on 127.0.0.1 until interrupted.

    The page opens with `run`, or else with the newest finished run in `artifacts_dir`, or else with
    the model in the package. `port` 0 is any free port; `announce` is called with the model and the
    address once the page is served. RunError is raised if Gradio is not installed or no fold of
    `run` is finished, ConfigError if the port is in use.
    """
    models = list_models(run, artifacts_dir)
    app = build_app(models)
    import uvicorn

    listener = listen(_HOST, port, flags=f"--port {port}")
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,  # a page that is open in a browser keeps its connection
    )
    address = f"http://{_HOST}:{listener.getsockname()[1]}/"
    announce(
        f"{address} shows {models[0].name} (reachable only from this machine; stop with Ctrl+C)"
    )
    uvicorn.Server(config).run(sockets=[listener])


def build_app(models: Sequence[Model]) -> Guard:
    """Return the protected page as an ASGI application; RunError if Gradio is not installed."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported
    try:
        import gradio
        from fastapi import FastAPI
    except ImportError as error:
        raise RunError("The demo needs Gradio: run pip install 'tiewise[demo]'.") from error
    page = _build_page(gradio, models)
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    mounted = gradio.mount_gradio_app(app, page, path="/", footer_links=[], css=_CSS)
    return Guard(mounted, max_bytes=_MAX_BYTES)


def _build_page(gradio: Any, models: Sequence[Model]) -> Any:
    def answer(place: int, show_orders: bool, *texts: str | None) -> str:
        # A field in an accordion that was never opened is None.
        prompt, *responses = (text or "" for text in texts)
        return answer_in_html(models[place], prompt, responses, show_orders=show_orders)

    def text(label: str, name: str, lines: int) -> Any:
        return gradio.Textbox(
            label=label,
            lines=lines,
            max_lines=20,
            max_length=MAX_CHARS + 1,  # a longer text is cut here, and then refused
            min_width=280,
            elem_id=name,
        )

    with gradio.Blocks(title="tiewise") as page:
        gradio.Markdown(_ABOUT)
        choices = [(model.name, place) for place, model in enumerate(models)]
        model = gradio.Dropdown(choices, value=0, label="Model", elem_id="model", filterable=False)
        about = gradio.HTML(_paragraph(models[0].about), elem_id="about", elem_classes="result")
        examples = gradio.Row()
        prompt = text("Prompt", "prompt", 2)
        with gradio.Row():
            responses = [text(f"Response {name}", f"response-{name}", 6) for name in LETTERS[:2]]
        with gradio.Accordion("More responses", open=False, elem_id="more"):
            responses += [text(f"Response {name}", f"response-{name}", 3) for name in LETTERS[2:5]]
        show_orders = gradio.Checkbox(label="Show both orders of each pair", elem_id="both")
        button = gradio.Button("Judge", variant="primary", elem_id="judge")
        result = gradio.HTML(elem_id="result", elem_classes="result")
        inputs, private = [model, show_orders, prompt, *responses], {"api_name": False}
        shown = {"scroll_to_output": True, **private}
        button.click(answer, inputs, result, **shown)
        model.change(lambda place: _paragraph(models[place].about), model, about, **private)
        with examples:
            for name, texts in _EXAMPLES.items():
                filled = [*texts, *[""] * (1 + len(responses) - len(texts))]
                example = gradio.Button(name, size="sm", min_width=140, elem_classes="example")
                done = example.click(partial(list, filled), None, inputs[2:], **private)
                done.then(answer, inputs, result, **shown)
    return page


def answer_in_html(
    model: Model, prompt: str, responses: Sequence[str], *, show_orders: bool = False
) -> str:
    """Return the judgement of a model as HTML, or a sentence that says why there is none."""
    try:
        return _to_html(judge_responses(prompt, responses, run=model.run), show_orders=show_orders)
    except TiewiseError as error:
        return _paragraph(str(error), "problem")
    except Exception:
        _log.exception("The demo could not judge these texts.")
        return _paragraph("An error occurred. The terminal of tiewise demo shows it.", "problem")


def _to_html(found: Judgement, *, show_orders: bool) -> str:
    parts = [_show_pair(row) for row in found.pairs.to_dict("records")]
    if not found.ranking.empty:
        parts.append(_show_table(found.ranking, "Ranking"))
    if show_orders and not found.orders:
        parts.append(_paragraph(_SYMMETRIC))
    elif show_orders:
        parts += [
            _show_table(table, f"{first} or {second}, by the order in which they are shown")
            for (first, second), table in found.orders.items()
        ]
    return "".join([*parts, _paragraph(found.truncation)])


def _show_pair(row: dict[Any, Any]) -> str:
    """Return the most probable outcome, the three probabilities, and a bar of them."""
    outcomes = {
        "first": f"{row['first']} preferred",
        "second": f"{row['second']} preferred",
        "tie": "tie",
    }
    shares = dict(zip(outcomes, (row[name] for name in PROB_COLUMNS), strict=True))
    best = max(shares, key=lambda name: shares[name])
    named = ", ".join(f"{outcomes[name]} {share:.0%}" for name, share in shares.items())
    bar = "".join(
        f'<span class="{name}" style="flex-grow:{share:.4f}"></span>'
        for name, share in shares.items()
    )
    title = f"{row['first']} or {row['second']}: most probably {outcomes[best]}"
    return (
        f'<div class="pair"><h3>{title}</h3><p>{named}</p>'
        f'<div class="bar" aria-hidden="true">{bar}</div></div>'
    )


def _show_table(table: pd.DataFrame, title: str) -> str:
    shown = table.to_html(index=False, escape=True, border=0, justify="left")
    return f'<h3>{title}</h3><div class="wide">{shown}</div>'


def _paragraph(text: str, kind: str = "note") -> str:
    return f'<p class="{kind}">{html.escape(text)}</p>'
