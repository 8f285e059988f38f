"""Requests that schemathesis makes from the OpenAPI page: none ends with a server error."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    response_schema_conformance,
    status_code_conformance,
)

from served import export_tiny, running

CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance]


@pytest.fixture(scope="module")
def schema(cache_dir, tmp_path_factory):
    """Read the page of a server of an export."""
    export_dir = export_tiny(cache_dir, tmp_path_factory.mktemp("openapi"))
    with running(export_dir) as (_, address):
        yield schemathesis.openapi.from_url(f"{address}/openapi.json")


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/judge"), ("POST", "/classify"), ("GET", "/health"), ("GET", "/metrics")],
)
def test_requests_are_answered_as_documented(schema, method, path):
    """Valid and invalid requests get a documented status, with a body of the documented shape."""

    # The package schemathesis has a plugin for pytest, whose version 4.32 fails with pytest 9.2.
    @settings(max_examples=30, suppress_health_check=list(HealthCheck))
    @given(case=schema[path][method].as_strategy())
    def check(case):
        case.call_and_validate(checks=CHECKS)

    check()
    assert {(o.ok().method.upper(), o.ok().path) for o in schema.get_all_operations()} == {
        ("POST", "/judge"), ("POST", "/classify"), ("GET", "/health"), ("GET", "/metrics"),
    }  # fmt: skip
