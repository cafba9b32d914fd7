"""Publishes the agents of a run on the Hugging Face hub, a model repository for each."""

import os
import re
from collections.abc import Callable
from pathlib import Path

from memr1_jax.errors import UserError
from memr1_jax.inference.model_card import AGENTS, model_card
from memr1_jax.models.hf.folders import ADAPTERS, CHAT_EXAMPLES, RETRIEVAL, SETTINGS, read_json
from memr1_jax.models.hf.sources import SHIPPED, published_name
from memr1_jax.options import user_path

_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def push(
    run: str | os.PathLike,
    name: str,
    *,
    adapters: bool = False,
    private: bool = True,
    license: str = "",
    say: Callable[[str], object] = print,
) -> list[str]:
    """Uploads what a run exported to `NAME-manager` and `NAME-answer`, each with a model card.

    `m1.load(NAME)` reads both back; the card of an agent that was trained alone says how it is
    loaded (`load_call`). A repository that exists gets a new commit, which holds all files of the
    agent or none.

    Args:
      run: the run folder.
      name: owner/name on the hub.
      adapters: the LoRA adapters alone, in place of the merged model.
      private: whether new repositories are private.
      license: its identifier on the hub; by default the card points to the base model.
      say: told of each upload.

    Returns:
      The names of the repositories.

    Raises:
      UserError: the run exported no such agents, adapters are of a model that is only here, the
        name is none, or the hub refuses.
    """
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    run = user_path(run)
    if not _NAME.fullmatch(name):
        raise UserError(f"{name!r} is no name on the hub. Give one as OWNER/NAME.")
    found = {agent: files for agent in AGENTS if (files := _files(run, agent, adapters))}
    if not found:
        missing = "adapters; train with --lora_rank" if adapters else "agents; resume with --export"
        raise UserError(f"The run in {run} has exported no {missing}.")
    api, pushed = huggingface_hub.HfApi(), []
    for agent, files in found.items():
        target = f"{name}-{agent}"
        card = model_card(run, agent, name, tuple(found), license, adapters)
        add = huggingface_hub.CommitOperationAdd
        operations = [add(path.name, str(path)) for path in files]
        operations.append(add("README.md", card.encode()))
        say(f"Uploading {len(operations)} files to {target}.")
        try:
            api.create_repo(target, private=private, exist_ok=True)
            api.create_commit(target, operations, commit_message=f"{agent} of a run of memr1_jax")
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            raise UserError(
                f"The hub did not take {target} ({str(error).splitlines()[0][:200]}). Log in with"
                " `hf auth login` or HF_TOKEN, as somebody who may write there."
            ) from error
        pushed.append(target)
    return pushed


def _files(run: Path, agent: str, adapters: bool) -> list[Path]:
    """Lists what is uploaded of an agent; none where the run did not export it."""
    whole = run / "export" / agent
    folder = run / "export" / f"{agent}_adapter" if adapters else whole
    if not folder.is_dir():
        return []
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if adapters:
        base = str(read_json(folder / ADAPTERS).get("base_model_name_or_path"))
        if base not in SHIPPED and not published_name(base):
            raise UserError(
                f"{folder} holds adapters of {base}, a model that others do not have. Push the"
                " merged model, without --adapters; or publish that model and put its name into"
                f" {folder / ADAPTERS}."
            )
        extra = (whole / name for name in (SETTINGS, RETRIEVAL, CHAT_EXAMPLES))
        files += [path for path in extra if path.is_file()]
    return [path for path in files if path.name != "README.md"]
