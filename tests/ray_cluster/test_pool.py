"""Workers on a real cluster of two nodes: deaths, errors, and clusters that start no worker."""

import json
import shutil

import pytest

from ray_nodes import SOURCES
from tiewise.cluster.ray_pool import MAX_FAILURES_IN_A_ROW, MAX_TRIES


@pytest.fixture
def run(cluster, tmp_path):
    """Return a function that runs tasks and returns the outcome, or the message of an error."""

    def run_tasks(tasks, status=0, **options):
        words = ("-m", "odd_workers", cluster.address, json.dumps(tasks), json.dumps(options))
        driver = cluster.drive(*words, cwd=tmp_path)
        out, messages = driver.communicate(timeout=120)
        assert driver.returncode == status, messages
        return (json.loads(out) if status == 0 else messages), messages

    return run_tasks


def _names(outcome):
    return sorted(task for task, _ in outcome["done"])


def test_two_workers_share_tasks(run):
    """Every task is computed once, and both nodes take part."""
    tasks = [f"slow {number}" for number in range(8)]
    outcome, _ = run(tasks)
    assert _names(outcome) == tasks
    assert len({process for _, process in outcome["done"]}) == 2
    assert outcome["n_deaths"] == 0
    assert outcome["left_out"] == {}


def test_more_workers_than_places(run):
    """Workers that the cluster has no place for wait, and the others compute everything."""
    outcome, _ = run(["a", "b", "c", "d", "e"], n_workers=5)
    assert _names(outcome) == ["a", "b", "c", "d", "e"]


def test_lost_task_is_repeated(run, tmp_path):
    """A task that ends its process once is computed by another worker."""
    outcome, messages = run([f"once:{tmp_path / 'mark'}", "b"])
    assert len(outcome["done"]) == 2
    assert outcome["n_deaths"] == 1
    assert outcome["left_out"] == {}
    assert "A worker died (127.0.0." in messages


def test_bad_tasks_left_out(run):
    """Tasks that end their process, raise or refuse are named, and the rest is computed."""
    outcome, messages = run(["a", "exit", "slow", "raise", "refuse", "b"])
    assert _names(outcome) == ["a", "b", "slow"]
    assert outcome["n_deaths"] == MAX_TRIES
    assert outcome["left_out"] == {
        "1": f"{MAX_TRIES} workers died while they computed it (killed, out of memory, or without "
        "progress for 30 min)",
        "3": "OSError: the disk was full",
        "4": "PairsError: row group 3 is damaged",
    }
    assert f"exit is left out: {MAX_TRIES} workers died while they computed it" in messages


def test_hanging_task_left_out(run):
    """A worker without progress is ended, and its task left out after three tries."""
    outcome, _ = run(["a", "hang", "b"], patience=2)
    assert _names(outcome) == ["a", "b"]
    assert "without progress for 2 s" in outcome["left_out"]["1"]


def test_progress_keeps_slow_task(run):
    """A task that takes longer than the patience is kept while its progress bar moves."""
    outcome, _ = run(["progress"], patience=1)
    assert _names(outcome) == ["progress"]
    assert outcome["n_deaths"] == 0


def test_progress_is_logged(run):
    """Without a terminal a line now and then says how much is done, by how many workers."""
    tasks = [f"slow {number}" for number in range(8)]
    _, messages = run(tasks, line_seconds=1, n_workers=1)
    lines = [line for line in messages.splitlines() if " of 8 tasks done" in line]
    assert len(lines) >= 2
    assert ", 1 workers, " in lines[-1]
    assert "tasks a second, " in lines[-1]


def test_many_failures_end_job(run):
    """A job in which every task fails ends after the first few."""
    message, _ = run(["raise"] * (MAX_FAILURES_IN_A_ROW + 20), status=2)
    assert "in a row; the last: OSError: the disk was full" in message
    assert message.count("is left out") == MAX_FAILURES_IN_A_ROW


def test_damaged_tasks_do_not_end_job(run):
    """Tasks whose data are refused are left out, however many follow each other."""
    n = MAX_FAILURES_IN_A_ROW
    outcome, _ = run([*["refuse"] * n, "b"], n_workers=1)
    assert _names(outcome) == ["b"]
    assert sorted(outcome["left_out"]) == [str(place) for place in range(n)]


def test_slow_start_is_waited_for(run):
    """A worker that loads its model is one, also where that takes longer than the wait for any."""
    outcome, messages = run(["a"], make="slow", start_seconds=10)
    assert _names(outcome) == ["a"]
    assert "no worker started" not in messages


def test_hanging_start_ends_job(run):
    """A worker that never ends to load is ended after the patience, and others are tried."""
    message, _ = run(["a"], status=2, make="slow", patience=1)
    assert message.count("A worker died (127.0.0.") == MAX_FAILURES_IN_A_ROW


def test_refused_start_ends_job(run):
    """The error of a worker that refuses to start, such as another model, is that of the job."""
    message, _ = run(["a"], status=2, make="refuse")
    assert message.splitlines()[-1] == "error: the model is another one"


def test_broken_start_ends_job(run):
    """Workers that cannot start for another reason are started again a few times."""
    message, _ = run(["a"], status=2, make="fail")
    assert "No module named 's3fs'" in message
    assert message.count("A worker died (127.0.0.") == MAX_FAILURES_IN_A_ROW


def test_no_place_for_workers(run):
    """A job without any worker ends with what the cluster offers, and what a worker needs."""
    message, _ = run(["a"], status=2, worker_gpus=1, start_seconds=3)
    assert "no worker started in 3 s: the cluster offers 2 of 2 CPUs and 0 of 0 GPUs" in message
    assert "a worker needs 1 CPU and 1 GPUs" in message


def test_no_cluster_at_address(cluster, tmp_path):
    """An address without a cluster is named, with the ways to get one."""
    environment = cluster.environment() | {"RAY_ADDRESS": "127.0.0.2:1"}
    for address in ("auto", "127.0.0.2:1"):
        words = ("-m", "odd_workers", address, '["a"]', "{}")
        driver = cluster.drive(*words, cwd=tmp_path, environment=environment)
        _, messages = driver.communicate(timeout=60)
        assert driver.returncode == 2
        assert f"error: --ray {address}: no cluster answers: [Errno 111] Connection" in messages


def test_wrong_token_is_named(cluster, tmp_path):
    """A driver without the token of the cluster ends with a message about authentication."""
    environment = cluster.environment() | {"RAY_AUTH_TOKEN": "0" * 64}
    words = ("-m", "odd_workers", cluster.address, '["a"]', "{}")
    driver = cluster.drive(*words, cwd=tmp_path, environment=environment)
    _, messages = driver.communicate(timeout=60)
    assert driver.returncode == 2
    assert "needs the same RAY_AUTH_TOKEN" in messages


def test_other_version_refused(cluster, tmp_path):
    """A node with another version of tiewise is named, and nothing is computed."""
    sources = tmp_path / "other"
    shutil.copytree(SOURCES, sources)
    module = sources / "tiewise" / "__init__.py"
    module.write_text(module.read_text() + '\n__version__ = "9.9"\n')
    node = cluster.add(2, sources=sources)
    try:
        tasks = json.dumps([f"slow {number}" for number in range(9)])
        driver = cluster.drive(
            "-m", "odd_workers", cluster.address, tasks, '{"n_workers": 3}', cwd=tmp_path
        )
        _, messages = driver.communicate(timeout=60)
    finally:
        node.kill()
    assert driver.returncode == 2, messages
    assert f"machine {node.address} of the cluster has tiewise 9.9; expected" in messages
