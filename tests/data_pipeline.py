"""A pipeline of Ray Data with a judge, as ``docs/scaling.md`` shows it."""

from __future__ import annotations

import sys

import ray

import tiewise as tw


def main(address: str, source: str, out: str) -> None:
    """Judge the pairs of a file with one actor, and write them to a folder."""
    ray.init(address, _node_ip_address=address.split(":", maxsplit=1)[0], log_to_driver=False)
    data = ray.data.read_parquet(source)
    judged = data.map_batches(
        tw.Judge, fn_constructor_args=("shipped",), concurrency=1, batch_format="pyarrow"
    )
    judged.write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
