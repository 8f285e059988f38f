"""Fixtures: an object store on this machine, and runs of the feature model."""

from __future__ import annotations

import logging
import uuid

import fsspec
import pytest

from run_folders import fit_small
from tiewise.features import binary_models


@pytest.fixture(scope="session")
def store():
    """Start a server of the S3 protocol on the local machine; return its file system."""
    server_module = pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setitem(fsspec.config.conf, "s3", {"endpoint_url": f"http://{host}:{port}"})
        yield fsspec.filesystem("s3")
    server.stop()


@pytest.fixture
def bucket(store):
    """Return the address of an empty bucket."""
    name = f"bucket-{uuid.uuid4().hex[:8]}"
    store.mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """Return a folder with the runs `one` and `two` of the feature model."""
    folder = tmp_path_factory.mktemp("artifacts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary_models, "_MAX_TREES", 5)
        for seed, name in enumerate(("one", "two")):
            fit_small(folder, name, seed=seed)
    return folder
