"""Requests and responses of the server, as its OpenAPI page shows them."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

MAX_RESPONSES = 16
MAX_ROWS = 256
_Turns = Annotated[list[str | None], Field(min_length=1, max_length=1_000)]
Text = Annotated[
    str | _Turns, Field(description="A text, or a list of turns in which null is a missing turn.")
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class JudgeRequest(_Strict):
    """A prompt and the responses to compare."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"prompt": "What is 2 + 2?", "responses": ["2 + 2 = 4.", "I can't say."]}]
        }
    )
    prompt: Text
    responses: Annotated[list[Text], Field(min_length=2, max_length=MAX_RESPONSES)]
    both_orders: Annotated[
        bool, Field(description="Score each pair in both orders and average the probabilities.")
    ] = True


class Probs(BaseModel):
    """Probabilities of one pair, of sum 1."""

    a: float
    b: float
    tie: float


class PairScore(BaseModel):
    """Two responses, by position, and P(first wins), P(second wins), P(tie)."""

    first: int
    second: int
    probs: Probs
    n_tokens: Annotated[int, Field(description="Tokens of the row; 0 for the feature model.")]
    n_truncated: Annotated[int, Field(description="Tokens that did not fit into the row.")]


class Place(BaseModel):
    """The place of a response, with a 95 % interval, and the probability that it is the best."""

    response: int
    place: int
    low: int
    high: int
    prob_best: float


class Judgement(BaseModel):
    """Every pair of responses, and the ranking, the best first."""

    model: str
    pairs: list[PairScore]
    ranking: list[Place]


class ClassifyRequest(BaseModel):
    """Rows of ids, as vLLM's ``/classify`` takes them. Text is refused: it is not a row."""

    # vLLM's clients send further fields; those that this server does not know change nothing.
    model_config = ConfigDict(
        strict=True, json_schema_extra={"examples": [{"input": [[2, 105, 9731, 106, 1]]}]}
    )
    input: Annotated[
        list[Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]],
        Field(min_length=1, max_length=MAX_ROWS),
    ]
    model: str | None = None
    use_activation: Annotated[
        bool | None, Field(description="False: logits in place of probabilities.")
    ] = None


class ClassifyEntry(BaseModel):
    """The answer for one row: numbers of A, B, tie, and the class with the highest."""

    index: int
    label: str
    probs: list[float]
    num_classes: int = 3


class Classified(BaseModel):
    """Answers in the order of the rows."""

    object: str = "list"
    model: str
    data: list[ClassifyEntry]


class Health(BaseModel):
    """State of the server."""

    status: str
    model: str
    version: str


class ErrorText(BaseModel):
    """What is wrong and how to correct it."""

    message: str
    code: int


class ErrorBody(BaseModel):
    """The body of every refusal."""

    error: ErrorText


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """Return the entry `responses` of a route for the statuses of its refusals."""
    return {code: {"model": ErrorBody, "description": _REASONS[code]} for code in codes}


_REASONS = {
    400: "The body is not JSON.",
    401: "The bearer token is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "The body, or a row, is too large.",
    422: "A field is wrong.",
    429: "The queue is full.",
    503: "The server is stopping.",
    504: "The answer took too long.",
}
