"""What ``accelerate launch`` makes of a configuration file: the environment of its processes."""

from __future__ import annotations

from pathlib import Path

from accelerate.commands.config import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

CONFIGURATIONS = sorted((Path(__file__).parents[1] / "docs" / "accelerate").glob("*.yaml"))
FSDP = next(path for path in CONFIGURATIONS if path.name.startswith("fsdp"))


def read_environment(path: Path) -> dict[str, str]:
    """Return the variables that accelerate sets for processes launched with the file."""
    words = ["--config_file", str(path), "-m", "tiewise", "fit"]
    arguments, *_ = _validate_launch_command(launch_command_parser().parse_args(words))
    if arguments.use_deepspeed:
        fields = load_config_from_file(str(path)).deepspeed_config
        arguments.deepspeed_fields_from_accelerate_config = ",".join(fields)
        _, variables = prepare_deepspeed_cmd_env(arguments)
    else:
        variables = prepare_multi_gpu_env(arguments)
    own = ("ACCELERATE_", "FSDP_")
    return {name: value for name, value in variables.items() if name.startswith(own)}
