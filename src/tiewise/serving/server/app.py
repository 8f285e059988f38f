"""The application of ``tiewise serve``: routes, refusals and metrics."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from scipy.special import softmax
from starlette.exceptions import HTTPException as RoutingError

from tiewise import __version__
from tiewise.errors import TiewiseError
from tiewise.judges.judge import Judge, arrange_probs
from tiewise.judges.response_ranking import rank_answers
from tiewise.serving.server.batching import BusyError
from tiewise.serving.server.engine import Engine, Floats, Limits, Question, Scored, TooLargeError
from tiewise.serving.server.schema import (
    Classified,
    ClassifyEntry,
    ClassifyRequest,
    Health,
    Judgement,
    JudgeRequest,
    PairScore,
    Place,
    Probs,
    refusals,
)

_LABELS = ("A", "B", "tie")
_ABOUT = """Which of two or more responses to a prompt would people prefer?

Probabilities of A, B and tie, in both orders. Every refusal is JSON:
`{"error": {"message", "code"}}`.
"""
Result = TypeVar("Result")
_bearer = HTTPBearer(auto_error=False)
_CODES = (400, 401, 408, 413, 422, 429, 503, 504)


def make_app(judge: Judge, *, has_token: bool = False, limits: Limits | None = None) -> FastAPI:
    """Return the application; `has_token` says whether its guard asks for a bearer token."""
    limits = limits or Limits()
    engine = Engine(judge, limits)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(
        title="tiewise", version=__version__, description=_ABOUT, lifespan=lifespan,
        redoc_url=None,
    )  # fmt: skip
    _add_metrics(app, engine)
    _add_refusals(app)
    documented = [Depends(_bearer)] if has_token else []

    @app.post(
        "/judge",
        dependencies=documented,
        responses=refusals(*_CODES),
    )
    async def judge_responses(request: JudgeRequest) -> Judgement:
        """Compare every two of several responses to a prompt, and rank them."""
        question = Question(request.prompt, request.responses, request.both_orders)
        scored = await _wait(lambda: engine.judge_pairs(question), limits.seconds)
        n = len(request.responses)
        if n == 2:  # takes less time than a thread
            return _describe(judge.name, scored, n)
        return await asyncio.to_thread(_describe, judge.name, scored, n)

    @app.post(
        "/classify",
        dependencies=documented,
        responses=refusals(*_CODES),
    )
    async def classify(request: ClassifyRequest) -> Classified:
        """Score rows of ids that the client has built, as vLLM's route of this name does."""
        engine.check_rows(request.input)
        logits = await _wait(lambda: engine.score_rows(request.input), limits.seconds)
        return _classified(judge.name, logits, use_logits=request.use_activation is False)

    @app.get("/health")
    async def health() -> Health:
        """Say which judge is served."""
        return Health(status="ok", model=judge.name, version=__version__)

    return app


async def _wait(submit: Callable[[], Future[Result]], seconds: float) -> Result:
    """Return the result of a queued request; refuse it when the queue is full or it is late."""
    try:
        future = submit()
    except BusyError as error:
        code = 503 if error.is_closed else 429
        raise HTTPException(code, str(error), headers={"Retry-After": "1"}) from error
    try:
        return await asyncio.wait_for(asyncio.wrap_future(future), seconds)
    except TimeoutError as error:
        raise HTTPException(504, f"There was no answer in {seconds:g} seconds.") from error


def _describe(name: str, scored: Scored, n: int) -> Judgement:
    values = zip(scored.probs.tolist(), scored.counts.tolist(), strict=True)
    pairs = [
        PairScore(
            first=i, second=j, probs=Probs(a=a, b=b, tie=tie), n_tokens=tokens, n_truncated=cut
        )
        for (i, j), ((a, b, tie), (tokens, cut)) in zip(
            itertools.combinations(range(n), 2), values, strict=True
        )
    ]
    ranking = rank_answers(arrange_probs(scored.probs, n))
    return Judgement(
        model=name,
        pairs=pairs,
        ranking=[
            Place(
                response=k, place=ranking.places[k], low=ranking.place_low[k],
                high=ranking.place_high[k], prob_best=ranking.prob_best[k],
            )
            for k in ranking.order.tolist()
        ],
    )  # fmt: skip


def _classified(name: str, logits: Floats, *, use_logits: bool) -> Classified:
    values = logits if use_logits else softmax(logits, axis=1)
    entries = [
        ClassifyEntry(index=index, label=_LABELS[int(row.argmax())], probs=row.tolist())
        for index, row in enumerate(values)
    ]
    return Classified(model=name, data=entries)


def _refuse(code: int, message: str, headers: Any = None) -> JSONResponse:
    error = {"message": message, "code": code}
    return JSONResponse({"error": error}, status_code=code, headers=headers)


def _add_refusals(app: FastAPI) -> None:
    """Answer every error with a message in JSON."""

    @app.exception_handler(RoutingError)
    async def _(_: Request, error: RoutingError) -> Response:
        return _refuse(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    async def _(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return _refuse(400, f"The body is not JSON: {first['ctx']['error']}.")
        where = ".".join(str(part) for part in first["loc"] if part != "body") or "the body"
        return _refuse(422, f"{where}: {first['msg']}.")

    @app.exception_handler(Exception)
    async def _(_: Request, error: Exception) -> Response:
        return _refuse(500, f"The server failed with {type(error).__name__}; its log says where.")

    @app.exception_handler(TooLargeError)
    async def _(_: Request, error: TooLargeError) -> Response:
        return _refuse(413, str(error))

    @app.exception_handler(TiewiseError)
    async def _(_: Request, error: TiewiseError) -> Response:
        return _refuse(422, str(error))


def _add_metrics(app: FastAPI, engine: Engine) -> None:
    """Count requests by route and status, and time them; serve the numbers at ``/metrics``."""
    registry = CollectorRegistry()
    counted = Counter(
        "tiewise_requests", "Requests by route and status.", ["route", "status"], registry=registry
    )
    timed = Histogram(
        "tiewise_request_seconds", "Seconds until the answer.", ["route"], registry=registry
    )
    waiting = Gauge("tiewise_waiting_tokens", "Tokens in the queues.", registry=registry)
    waiting.set_function(lambda: engine.waiting)

    @app.middleware("http")
    async def measure(
        request: Request, answer: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        start = time.perf_counter()
        status = 500
        try:
            response = await answer(request)
            status = response.status_code
            return response
        finally:
            path = getattr(request.scope.get("route"), "path", "other")
            counted.labels(path, status).inc()
            timed.labels(path).observe(time.perf_counter() - start)

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Return counts and times in the format of Prometheus."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")
