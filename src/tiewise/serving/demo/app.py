"""A page to try a model on: several answers to one prompt, both orders, what was cut, the ranking.

Gradio draws it (the extra ``demo``). It is served on 127.0.0.1 behind a guard,
sends nothing anywhere, and keeps nothing.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tiewise.errors import ConfigError, RunError, TiewiseError
from tiewise.serving.demo.guard import Guard
from tiewise.serving.demo.verdicts import LETTERS, Verdicts, judge_answers

N_ANSWERS = 5
MAX_CHARS = 40_000
_ABOUT = """# Which answer would people prefer?
Write a prompt and two to five answers. Every two answers are read in both orders, and averaged;
what is written stays on this machine."""
_HOST = "127.0.0.1"


def serve(run: Path | None, *, port: int, announce: Callable[[str], None]) -> None:
    """Serve the page until interrupted.

    Parameters
    ----------
    run
        Folder of the run that judges; the model that ships in the package when None.
    port
        On 127.0.0.1; 0 for any that is free.
    announce
        Called with a line that says where the page is, once it answers.

    Raises
    ------
    RunError
        When Gradio is not installed.
    ConfigError
        When the port is taken.
    """
    app = build_app(run)
    import uvicorn

    listener = _listen(port)
    config = uvicorn.Config(
        app,
        log_level="warning",
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=1,  # an open page keeps a connection for as long as it is open
    )
    announce(
        f"http://{_HOST}:{listener.getsockname()[1]}/ (for this machine alone; Ctrl+C ends it)"
    )
    uvicorn.Server(config).run(sockets=[listener])


def build_app(run: Path | None) -> Guard:
    """Return the page as an ASGI application, guarded.

    Raises
    ------
    RunError
        When Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before it is imported: it asks at once
    try:
        import gradio
        from fastapi import FastAPI
    except ImportError as error:
        raise RunError("The page needs Gradio: pip install 'tiewise[demo]'.") from error
    page = build_page(gradio, lambda prompt, *answers: judge_answers(prompt, answers, run=run))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    return Guard(gradio.mount_gradio_app(app, page, path="/", footer_links=[]))


def build_page(gradio: Any, judge: Callable[..., Verdicts]) -> Any:
    """Lay out the page.

    Parameters
    ----------
    gradio
        The library.
    judge
        From a prompt and answers to what is thought of them.
    """

    def answer(prompt: str, *answers: str) -> tuple[str, str, str]:
        try:
            found = judge(prompt, *answers)
        except TiewiseError as error:
            raise gradio.Error(str(error)) from error
        ranking = "" if found.ranking is None else _to_html(found.rank_table(), "Ranking")
        return _to_html(found.orders, "Every two answers, read in both orders"), found.cut, ranking

    with gradio.Blocks(title="tiewise") as page:
        gradio.Markdown(_ABOUT)
        prompt = gradio.Textbox(label="Prompt", lines=3, max_length=MAX_CHARS, elem_id="prompt")
        with gradio.Row():
            answers = [
                gradio.Textbox(
                    label=f"Answer {name}", lines=6, max_length=MAX_CHARS, elem_id=f"answer-{name}"
                )
                for name in LETTERS[:N_ANSWERS]
            ]
        button = gradio.Button("Judge", variant="primary", elem_id="judge")
        orders = gradio.HTML(elem_id="orders")
        cut = gradio.Textbox(label="What was cut", interactive=False, elem_id="cut")
        ranking = gradio.HTML(elem_id="ranking")
        button.click(answer, [prompt, *answers], [orders, cut, ranking], api_name=False)
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
            f"--port {port}: {error}. Take another, or 0 for any that is free."
        ) from error
    listener.listen()
    return listener
