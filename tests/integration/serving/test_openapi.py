"""Requests that schemathesis makes from the OpenAPI page: none ends with a server error."""

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)

from served import export_tiny
from tiewise.judges.judge import Judge
from tiewise.serving.guard import Guard
from tiewise.serving.server.app import make_app

CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def schema_of_server(cache_dir, tmp_path_factory):
    """Read the page of a server of an export, behind its guard."""
    export_dir = export_tiny(cache_dir, tmp_path_factory.mktemp("openapi"))
    app = make_app(Judge.from_pretrained(export_dir, device="cpu"))
    return schemathesis.openapi.from_asgi("/openapi.json", Guard(app, is_local=False))


schema = schemathesis.pytest.from_fixture("schema_of_server")


@schema.parametrize()
@settings(max_examples=40)
def test_documented_requests_are_answered_as_documented(case):
    """Valid and invalid requests get a documented status, with a body of the documented shape."""
    case.call_and_validate(checks=CHECKS)
