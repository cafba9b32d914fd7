"""LoRA adapters from and to folders of the peft library, which vLLM reads too."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from memr1_jax.errors import UserError
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.finite import RETRAIN, check_finite
from memr1_jax.models.hf.folders import ADAPTERS, read_json, whole_folder, write_json
from memr1_jax.models.hf.headers import check_dtype, read_header
from memr1_jax.models.lora import TARGETS, LoRA, abstract_adapters

_CONFIG, _WEIGHTS = ADAPTERS, "adapter_model.safetensors"
_MODULES = {  # of a layer, by our names
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}
_FACTORS = {"lora_a": "lora_A", "lora_b": "lora_B"}
_MOST = 4096  # the largest rank
# Settings that do not change what trained adapters compute.
_INERT = (
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "lora_dropout",  # of training alone
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "revision",
    "task_type",
)
# Ways to begin that leave the base model as it is; others, such as "pissa", change it.
_STARTS = (None, True, False, "gaussian", "orthogonal")


def export_adapters(
    folder: str | os.PathLike,
    adapters: dict,
    lora: LoRA,
    config: DecoderConfig,
    base_model_name: str,
) -> Path:
    """Writes a folder that `peft.PeftModel.from_pretrained` loads onto the base model.

    Weights are float32. The folder appears whole or not at all; an older one of adapters is
    replaced, anything else of that name is left alone with a UserError. Raises ValueError where
    `adapters` is not the tree of `config` and `lora`.

    Args:
      folder: to write.
      adapters: as `init_adapters` makes them, not yet multiplied with the scale.
      lora: rank, alpha and targets, which go into adapter_config.json.
      config: of the base model.
      base_model_name: folder or published name of the base model, for whoever loads the adapters.
    """
    from safetensors.numpy import save_file

    leaves = traverse_util.flatten_dict(adapters)
    found = {path: np.shape(leaf) for path, leaf in leaves.items()}
    expected = traverse_util.flatten_dict(abstract_adapters(config, lora))
    expected = {path: leaf.shape for path, leaf in expected.items()}
    if found != expected:
        raise ValueError(f"The adapters do not fit the config: {found} against {expected}.")
    check_finite(adapters, f"{folder} is not written", RETRAIN)
    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in leaves.items()}
    tensors = {name: np.ascontiguousarray(view) for name, view in _views(leaves)}
    targets = [target for target in TARGETS if target in lora.targets]
    alpha = int(lora.alpha) if float(lora.alpha).is_integer() else lora.alpha
    settings = {
        "base_model_name_or_path": base_model_name,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": lora.rank,
        "target_modules": [_MODULES[target].split(".")[-1] for target in targets],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    with whole_folder(folder, mark=_CONFIG) as new:
        save_file(tensors, new / _WEIGHTS, metadata={"format": "pt"})
        write_json(new / _CONFIG, settings)
    return Path(folder)


def load_adapters(folder: str | os.PathLike, config: DecoderConfig) -> tuple[dict, LoRA]:
    """Reads a folder of the peft library as float32 NumPy arrays, shaped as by `init_adapters`.

    Raises UserError, naming file and tensor or setting, for all but plain LoRA (biases, DoRA,
    ranks by layer, saved modules and so on), and for missing, unexpected or misshapen tensors.
    """
    from safetensors.numpy import load_file

    folder = Path(folder)
    lora = _read_settings(folder / _CONFIG)
    weights = folder / _WEIGHTS
    if not weights.is_file():
        raise UserError(f"{weights} is missing. Save the adapters as safetensors.")
    stored = read_header(weights)
    empty = jax.tree.map(
        lambda leaf: np.empty(leaf.shape, leaf.dtype), abstract_adapters(config, lora)
    )
    views = dict(_views(traverse_util.flatten_dict(empty)))
    advice = f"The adapters belong to another base model, or do not fit their {_CONFIG}."
    for name, view in views.items():
        if name not in stored:
            raise UserError(f"{weights} lacks tensor {name}. {advice}")
        if stored[name].shape != view.shape:
            raise UserError(
                f"{weights}: tensor {name} has shape {list(stored[name].shape)} where the base "
                f"model and the rank ask for {list(view.shape)}. {advice}"
            )
        check_dtype(stored[name])
    if unexpected := stored.keys() - views:
        raise UserError(f"{weights} holds an unexpected tensor {min(unexpected)}. {advice}")
    for name, tensor in load_file(weights).items():
        views[name][...] = tensor
    return empty, lora


def _views(leaves: dict) -> Iterator[tuple[str, np.ndarray]]:
    """Lists every tensor by its published name, `[out, in]`, as a view of its leaf."""
    for (*_, target, factor), leaf in leaves.items():
        for index, part in enumerate(leaf):
            rows = part.shape[0] if factor == "lora_b" else -1
            columns = part.shape[-1] if factor == "lora_a" else -1
            name = f"model.layers.{index}.{_MODULES[target]}.{_FACTORS[factor]}.weight"
            yield f"base_model.model.{name}", part.reshape(rows, columns).T


def _read_settings(path: Path) -> LoRA:
    settings = read_json(path)
    known = {key: settings.pop(key, None) for key in ("peft_type", "r", "lora_alpha")}
    rank, alpha = known["r"], known["lora_alpha"]
    if known["peft_type"] != "LORA":
        raise UserError(f"{path}: peft_type is {known['peft_type']}, not LORA. Only LoRA is read.")
    if type(rank) is not int or not 1 <= rank <= _MOST or type(alpha) not in (int, float):
        raise UserError(
            f"{path} must give r as a whole number from 1 to {_MOST} and lora_alpha as a number, "
            f"not {rank!r:.80} and {alpha!r:.80}."
        )
    modules = settings.pop("target_modules", None)
    targets = {module.split(".")[-1]: target for target, module in _MODULES.items()}
    named = [str(module).split(".")[-1] for module in modules] if isinstance(modules, list) else []
    if not named or any(module not in targets for module in named):
        raise UserError(
            f"{path}: target_modules is {modules}; only a list of {', '.join(targets)} is read."
        )
    if settings.pop("init_lora_weights", None) not in _STARTS:
        raise UserError(f"{path}: init_lora_weights changed the base model, which is not read.")
    if settings.pop("bias", "none") != "none":
        raise UserError(f"{path}: bias is not none. Trained biases are not read.")
    for key, value in settings.items():
        if value and key not in _INERT:
            raise UserError(f"{path} sets {key} to {value}. Only plain LoRA is read.")
    chosen = {targets[module] for module in named}
    return LoRA(rank, float(alpha), tuple(target for target in TARGETS if target in chosen))
