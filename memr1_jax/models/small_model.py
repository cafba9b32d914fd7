"""A small model made on the spot: random weights and a tokenizer of its own, as a model folder."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import jax

from memr1_jax.models.decoder import init_params
from memr1_jax.models.decoder_config import DecoderConfig
from memr1_jax.models.hf.hf_weights import export_params

_START, _END = "<|im_start|>", "<|im_end|>"
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_small_model(
    folder: Path,
    texts: Iterable[str],
    config: DecoderConfig,
    seed: int = 0,
    *,
    capitals_apart: bool = False,
) -> Path:
    """Writes a Hugging Face folder with random weights and a tokenizer for the given texts.

    Args:
      folder: to write; it appears whole or not at all.
      texts: to train the tokenizer on; the same texts give the same tokenizer.
      config: shape of the model; its vocabulary is the tokenizer's at most.
      seed: of the weights.
      capitals_apart: see `train_tokenizer`.
    """
    folder = Path(folder)
    with tempfile.TemporaryDirectory() as source:
        tokenizer = train_tokenizer(texts, config.vocab_size, capitals_apart=capitals_apart)
        tokenizer.save_pretrained(source)
        params = jax.jit(init_params, static_argnums=0)(config, jax.random.key(seed))
        return export_params(folder, params, config, tokenizer_folder=source)


def train_tokenizer(texts: Iterable[str], vocab_size: int, *, capitals_apart: bool = False):
    """Trains a byte-level BPE tokenizer of at most `vocab_size` tokens with a chat template.

    With `capitals_apart` a space before a capital letter is a token of its own, so that a name has
    the same tokens after a space, a quote or a line break: what is the same is easily copied.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if capitals_apart:
        spaces = pre_tokenizers.Split(Regex(r" (?=\p{Lu})"), "isolated")
        words = pre_tokenizers.Sequence([spaces, words])
    backend.pre_tokenizer = words
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[_START, _END],
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token=_END, pad_token=_END, chat_template=_CHAT_TEMPLATE
    )
