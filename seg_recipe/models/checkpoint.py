"""Find the files of a checkpoint: in a local folder, else in the cache, else on the Hub, within a deadline."""

import json
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import HfApi, constants, metadata_load, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import httpx, validate_repo_id

from seg_recipe.runtime.deadlines import within
from seg_recipe.runtime.errors import InputError, first_line, meant

DEADLINE = 8.0
"""Seconds for the Hub to list a repository. `from_pretrained` itself took 23.5 s on a refused connection."""

_INDEX = "model.safetensors.index.json"
_WANTED = [
    "config.json",
    "preprocessor_config.json",
    "model.safetensors",
    _INDEX,
    "model-*.safetensors",
    "labels.json",
    "README.md",
]
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5", "model.ckpt.index")


class CheckpointFiles(NamedTuple):
    """The paths of a checkpoint's config.json, of the folder of its safetensors, of its preprocessor_config.json."""

    config: Path
    weights: Path | None
    processor: Path | None


def find_checkpoint(name: str, *, with_weights: bool) -> CheckpointFiles:
    """Find the files of the model `name`: in a local folder, else in the Hub's cache, else fetch them from the Hub.

    Cached files are used without asking the network. Only config, image processor, card and safetensors are fetched.
    A checkpoint whose weights are a pickle is refused, unless the Hub's conversion bot offers them as safetensors in a
    pull request.

    Raises InputError that names the model and the ways out, within `DEADLINE` if the Hub is silent.
    """
    folder = Path(name).expanduser()
    if folder.is_file() and folder.name == "config.json":
        folder = folder.parent
    if folder.is_dir():
        return _in_folder(folder, name, with_weights)
    try:
        validate_repo_id(name)
    except HFValidationError:
        raise InputError(f"model: {name} is neither a folder nor a Hub id. {_ways_out(with_weights)}") from None
    return _in_cache(name, with_weights) or _from_hub(name, with_weights)


def _ways_out(with_weights: bool) -> str:
    if with_weights:
        return (
            "Give a local folder with config.json and model.safetensors (--model PATH), or train from nothing: "
            "--from_scratch true."
        )
    return (
        "Give a local folder with config.json (--model PATH), or one whose sizes are known here: nvidia/mit-b0 to "
        "nvidia/mit-b5."
    )


def _in_folder(folder: Path, name: str, with_weights: bool) -> CheckpointFiles:
    if not (folder / "config.json").is_file():
        raise InputError(
            f"model: {name} has no config.json; wanted a folder that save_pretrained wrote. {_ways_out(with_weights)}"
        )
    if with_weights:
        missing = _missing_weights(folder)
        if missing and any((folder / pickle).exists() for pickle in _PICKLES):
            raise InputError(_pickle_only(name))
        if missing:
            raise InputError(f"model: {name} lacks {', '.join(missing[:3])}. {_ways_out(with_weights)}")
    processor = folder / "preprocessor_config.json"
    return CheckpointFiles(
        folder / "config.json", folder if with_weights else None, processor if processor.is_file() else None
    )


def _missing_weights(folder: Path) -> list[str]:
    """The files of weights that the folder lacks."""
    index = folder / _INDEX
    if not index.is_file():
        return [] if (folder / "model.safetensors").is_file() else ["model.safetensors"]
    shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(shard for shard in shards if not (folder / shard).is_file())


def _pickle_only(name: str) -> str:
    return (
        f"model: {name} has its weights as a pickle only, which can run any code when it is read; wanted "
        f"model.safetensors. Convert it where you trust it, or: {_ways_out(True)}"
    )


def _in_cache(name: str, with_weights: bool) -> CheckpointFiles | None:
    """The cached files of `name`, weights also from a pull request. None if some are missing."""
    snapshots = _snapshots(name)

    def holding(file: str) -> Path | None:
        return next((snapshot / file for snapshot in snapshots if (snapshot / file).is_file()), None)

    config = holding("config.json")
    weights = (
        next((snapshot for snapshot in snapshots if not _missing_weights(snapshot)), None) if with_weights else None
    )
    if config is None or (with_weights and weights is None):
        return None
    return CheckpointFiles(config, weights, holding("preprocessor_config.json"))


def _snapshots(name: str) -> list[Path]:
    """The cached folders of `name`: branch main, then the pull requests."""
    repository = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model")
    references = [repository / "refs" / "main", *sorted((repository / "refs" / "refs" / "pr").glob("*"))]
    return [
        repository / "snapshots" / reference.read_text().strip() for reference in references if reference.is_file()
    ]


def licence_of(name: str) -> str:
    """The licence in the checkpoint's own card (README.md): a Hub identifier, or the name of another licence.

    Empty where there is no card, where it cannot be read or states none. Asks no network.
    """
    folder = Path(name).expanduser()
    for card in [place / "README.md" for place in ([folder] if folder.exists() else _snapshots(name))]:
        try:
            stated = metadata_load(card) if card.is_file() else None
        except (ValueError, yaml.YAMLError, OSError):
            continue
        licence = stated and (stated.get("license_name") or stated.get("license"))
        if isinstance(licence, str):
            return licence
    return ""


def _from_hub(name: str, with_weights: bool) -> CheckpointFiles:
    """Fetch the files into the cache."""
    try:
        files = within(DEADLINE, lambda: {sibling.rfilename for sibling in HfApi().model_info(name).siblings or []})
        if "config.json" not in files:
            raise InputError(
                f"model: {name} on the Hub has no config.json, so it is no transformers model. "
                f"{_ways_out(with_weights)}"
            )
        revision = "main"
        if with_weights and not files & {"model.safetensors", _INDEX}:
            converted = within(DEADLINE, lambda: _converted_revision(name))
            if converted is None:
                raise InputError(_pickle_only(name))
            revision = converted
        wanted = _WANTED if with_weights else _WANTED[:2]
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=wanted, etag_timeout=DEADLINE))
    except (OSError, httpx.HTTPError) as error:
        raise InputError(
            f"model: {name}{meant(name)} is not in the cache and cannot be fetched: {_reason(error)}. "
            f"{_ways_out(with_weights)}"
        ) from None
    return _in_folder(folder, name, with_weights)


def _converted_revision(name: str) -> str | None:
    """The open pull request in which the Hub's conversion bot offers the same weights as safetensors, or None."""
    for discussion in HfApi().get_repo_discussions(
        name, author="SFconvertbot", discussion_type="pull_request", discussion_status="open"
    ):
        if discussion.author == "SFconvertbot" and discussion.title == "Adding `safetensors` variant of this model":
            return f"refs/pr/{discussion.num}"
    return None


def _reason(error: Exception) -> str:
    """Why a request to the Hub failed, in one line."""
    endpoint = constants.ENDPOINT
    if isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    if isinstance(error, GatedRepoError):
        return f"{endpoint} has it for those who accepted its terms; accept them there, then `hf auth login`"
    if isinstance(error, RepositoryNotFoundError):
        return f"{endpoint} has no such model, or it is private (`hf auth login`)"
    return f"{endpoint} does not serve it ({first_line(error)})"
