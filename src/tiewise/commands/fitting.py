"""Commands that fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from tiewise.commands.arguments import Artifacts, Config, Json, print_json
from tiewise.commands.words import shows
from tiewise.config.loading import PRESETS, load_preset
from tiewise.config.run_config import BASELINE
from tiewise.console import show
from tiewise.errors import ConfigError
from tiewise.runs.folder import default_artifacts


def make_fit(preset_name: str) -> Callable[..., None]:
    """Return the command ``fit``, its flags with the defaults of a preset."""
    defaults = load_preset(preset_name)

    @shows(
        "tiewise fit --preset quickstart --fold 0 --run first",
        "tiewise fit --preset gemma2-9b --data train.csv --folds all --run big",
        "tiewise fit --preset gemma2-9b --data train.csv --folds all --run big --resume",
        "tiewise fit --preset quickstart --data train.csv --limit 500 --report-to tensorboard",
    )
    def fit(
        *,
        preset: str = preset_name,
        fold: int | None = None,
        folds: Literal["all"] | None = None,
        run: str | None = None,
        resume: bool = False,
        overwrite: bool = False,
        init_from: Path | None = None,
        artifacts: Artifacts = default_artifacts(),  # noqa: B008 - read once, at the start
        json: Json = False,
        config: Config = defaults,
    ) -> None:
        """Fit one fold, or all, and write the run folder.

        Args:
            preset: Where the other flags' defaults come from: a name from `tiewise presets`, or a
                TOML file.
            fold: The fold to hold out; 0 when neither this nor --folds is given.
            folds: Fit every fold, one after the other.
            run: Name of the run; made from time and configuration when not given.
            resume: Go on from the newest intact checkpoint of the same run.
            overwrite: Fit the folds asked for anew, in place of what this run has of them.
            init_from: Start from the adapter in this folder (a fold of another run).
        """
        from tiewise.fitting.crossfit import FitOptions, cross_fit, summarise
        from tiewise.reporting.card import write_fold_card
        from tiewise.runs.environment import is_first_process

        del preset
        if fold is not None and folds is not None:
            raise ConfigError("--fold and --folds contradict each other; give one of them.")
        wanted = list(range(config.data.n_splits)) if folds else [fold or 0]
        options = FitOptions(
            run,
            is_resumed=resume,
            is_overwritten=overwrite,
            init_from=init_from,
            describe=write_fold_card,
        )
        done, fitted = cross_fit(config, wanted, artifacts, options)
        if not is_first_process():
            return
        scores = summarise(done)
        if json:
            about = {"run": done.name, "path": str(done.path), "fitted": fitted}
            print_json(about | scores.to_dict())
        elif not fitted:
            show(f"{done.path}: nothing to do, every fold asked for is finished.")
        else:
            show(f"{scores}\nRun {done.name} is in {done.path}.")

    return fit


@shows("tiewise presets", "tiewise presets --json")
def presets(*, json: Json = False) -> None:
    """List the presets and what they fit."""
    if json:
        print_json({name: load_preset(name).to_dict() for name in PRESETS})
        return
    for name in PRESETS:
        config = load_preset(name)
        how = f"{config.model.tuning}, max_length {config.template.max_length}"
        if config.model.backbone == BASELINE:
            how = "pair features, logistic regression and boosting"
        show(f"{name:14} {config.model.backbone}, {how}, device {config.train.device}")
