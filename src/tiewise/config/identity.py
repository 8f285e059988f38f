"""What a run computes, told apart from where and how fast it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiewise.config.run_config import RunConfig

OPERATIONAL = {
    "data": {"data", "data_format", "extra_data"},
    "train": {
        "micro_batch_tokens", "n_micro_batches", "layout", "checkpointing", "log_steps",
        "save_steps", "device", "report_to",
    },
    "predict": {"score_batch_tokens"},
}  # fmt: skip
"""Fields that change where and how fast a run goes, but not what it computes."""


def defining_fields(config: RunConfig) -> dict[str, Any]:
    """Return the fields that decide what a run computes, without the operational ones."""
    return {
        section: {k: v for k, v in fields.items() if k not in OPERATIONAL.get(section, ())}
        for section, fields in config.to_dict().items()
    }


def first_difference(before: Any, now: Any, name: str = "") -> tuple[str, Any, Any] | None:
    """Return (name, before, now) of the first place where two nested values differ, or None.

    Examples
    --------
    >>> first_difference({"a": {"b": 1}}, {"a": {"b": 2}})
    ('a.b', 1, 2)
    """
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return None if before == now else (name, before, now)
    for key in [*before, *(key for key in now if key not in before)]:
        inner = f"{name}.{key}" if name else str(key)
        found = first_difference(before.get(key), now.get(key), inner)
        if found is not None:
            return found
    return None


def public_name(backbone: str) -> str:
    """Return a backbone's name without the path of a local folder.

    Examples
    --------
    >>> public_name("/home/me/models/gemma-2-9b-it"), public_name("google/gemma-2-9b-it")
    ('gemma-2-9b-it', 'google/gemma-2-9b-it')
    """
    path = Path(backbone)
    return path.name if path.is_absolute() or path.exists() else backbone
