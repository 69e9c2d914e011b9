"""Access to the Hub, checked before step 1: the repository is there, and this token may write to it."""

import json
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, get_token, is_offline_mode
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError  # the last: of the HTTP library in use

from seg_recipe.runtime.deadlines import within
from seg_recipe.runtime.errors import InputError, first_line
from seg_recipe.runtime.secrets import without_secrets

RepoType = Literal["model", "space"]
_SETTINGS: dict[RepoType, str] = {"model": "hub_model_id", "space": "hub_space"}


def check_hub_access(
    repo_id: str | None,
    *,
    private: bool,
    output_dir: str | Path,
    patience: float = 10.0,
    repo_type: RepoType = "model",
    makes: bool = True,
) -> str:
    """The full id (`namespace/name`) of a repository that this token may write to. Call it on rank 0, before step 1.

    repo_id: without a namespace it is the user's own; None: named after `output_dir`. private: the visibility of a new
    repository. repo_type: a Space is made for Gradio. makes: whether a missing repository is made; if not, it is only
    assumed that it could be. HF_ENDPOINT, HF_TOKEN and `hf auth login` are honoured.
    Raises InputError where a setting or login must change, or the Hub does not answer within `patience` seconds.
    """
    if is_offline_mode():
        raise InputError(
            "push_to_hub is true, but HF_HUB_OFFLINE is set, which forbids it: unset it, or run with --push_to_hub "
            "false."
        )
    name = repo_id or Path(output_dir).resolve().name
    try:
        return within(patience, lambda: _writable_repo(name, private, repo_type, makes))
    except HfHubHTTPError as error:
        raise _refusal(error, name, repo_type) from None
    except HFValidationError:
        raise InputError(
            f"{_SETTINGS[repo_type]}: {name!r} is no repository name; letters, digits, - _ . as in ada/face-parser."
        ) from None
    except (HTTPError, TimeoutError, ConnectionError, json.JSONDecodeError) as error:
        raise InputError(
            f"push_to_hub is true, but the Hub at {constants.ENDPOINT} cannot be reached ({reason_of(error)}): check "
            "the network and HF_ENDPOINT, or train with --push_to_hub false and send the model later with `hf upload`."
        ) from None


def _writable_repo(name: str, private: bool, repo_type: RepoType, makes: bool) -> str:
    if get_token() is None:
        raise InputError(
            "push_to_hub is true, but nobody is logged in to the Hub: run `hf auth login` with a token that may write."
        )
    api = HfApi()
    if "/" not in name:
        name = f"{api.whoami()['name']}/{name}"
    if not makes and not api.repo_exists(name, repo_type=repo_type):
        api.whoami()  # an unknown token is refused all the same
        return name
    sdk = "gradio" if repo_type == "space" else None
    api.create_repo(name, private=private or None, exist_ok=True, repo_type=repo_type, space_sdk=sdk)
    # create_repo(exist_ok=True) passes with a read-only token where the repository exists
    api.auth_check(name, write=True, repo_type=repo_type)
    if private and api.repo_info(name, repo_type=repo_type).private is False:
        setting = _SETTINGS[repo_type]
        raise InputError(
            f"hub_private_repo is true, but {name} is there and public: change its settings, or set another "
            f"--{setting}."
        )
    return name


def _refusal(error: HfHubHTTPError, name: str, repo_type: RepoType) -> InputError:
    status = error.response.status_code
    if status == 401:
        return InputError(
            "push_to_hub is true, but the Hub does not know the token (401): run `hf auth login --force`, or mend "
            "HF_TOKEN."
        )
    if status in (402, 403):
        return InputError(
            f"push_to_hub is true, but this token may not write to {name} ({status}): it is read-only, or the "
            "namespace is not yours. "
            f"Run `hf auth login --force` with a token of the role write, or name your own --{_SETTINGS[repo_type]}."
        )
    return InputError(
        f"push_to_hub is true, but the Hub answered {status} for {name}: try later, or train with --push_to_hub false."
    )


def reason_of(error: Exception) -> str:
    """The first line of an error, without any secret that it may quote."""
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        error = error.__cause__  # huggingface_hub wraps the failure of a large file
    return without_secrets(first_line(error))
