"""Environment that ``accelerate launch`` gives its processes for a configuration file."""

from __future__ import annotations

from pathlib import Path

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

CONFIGURATIONS = sorted((Path(__file__).parents[1] / "docs" / "accelerate").glob("*.yaml"))
FSDP = next(path for path in CONFIGURATIONS if path.name.startswith("fsdp"))


def read_environment(path: Path) -> dict[str, str]:
    """Return the variables that accelerate sets for processes launched with the file."""
    words = ["--config_file", str(path), "-m", "tiewise", "fit"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    variables = prepare_multi_gpu_env(arguments)
    own = ("ACCELERATE_", "FSDP_")
    return {name: value for name, value in variables.items() if name.startswith(own)}
