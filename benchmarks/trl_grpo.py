"""Runs GRPO steps of TRL's trainer on the shared shape, on a CPU with torch.

Its tokenizer has one word for each token, so that prompts have exactly the shared tokens, and no
response ends early.
"""

import tempfile
from pathlib import Path

import grpo_step
import numpy as np
import torch
import trl
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    TrainerCallback,
)


def write_model(folder: Path, shape: dict[str, int]) -> PreTrainedTokenizerFast:
    """Writes a model of random weights and returns its tokenizer."""
    torch.manual_seed(0)
    words = {f"t{index}": index for index in range(shape["vocabulary"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="t0", eos_token="t1", padding_side="left"
    )
    config = LlamaConfig(
        num_hidden_layers=shape["layers"],
        vocab_size=shape["vocabulary"],
        hidden_size=shape["width"],
        intermediate_size=shape["mlp_width"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["key_heads"],
        tie_word_embeddings=True,
        rope_theta=grpo_step.ROPE_THETA,
        rms_norm_eps=grpo_step.NORM_EPSILON,
        max_position_embeddings=4096,
        bos_token_id=0,
        eos_token_id=None,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    wrapped.save_pretrained(folder)
    return wrapped


class Timed(TrainerCallback):
    """Times the trainer's steps."""

    def __init__(self, clock: grpo_step.Clock, rewards: list[float]):
        """Takes the clock, and the rewards that the trainer was told last."""
        self.clock, self.rewards = clock, rewards

    def on_step_begin(self, *_, **__):
        """Begins one."""
        self.clock.begin()

    def on_step_end(self, *_, **__):
        """Ends it."""
        self.clock.end(reward=float(np.mean(self.rewards)))


def main() -> None:
    """Runs the steps that the flags ask for."""
    options = grpo_step.arguments(__doc__, remat="none")
    shape = grpo_step.SHAPES[options.model]
    batches, texts = grpo_step.prompts(options), []
    for _ in range(options.steps):
        texts += [" ".join(f"t{token}" for token in row) for row in next(batches)]
    rewards: list[float] = []

    def score(completions, **_):
        spelled = ([int(word[1:]) for word in text.split()] for text in completions)
        rewards[:] = [grpo_step.reward(tokens, shape["vocabulary"]) for tokens in spelled]
        return rewards

    rows = options.prompts * options.group
    part = (options.micro or options.prompts) * options.group
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write_model(Path(folder), shape)
        settings = trl.GRPOConfig(
            output_dir=f"{folder}/run",
            per_device_train_batch_size=part,
            gradient_accumulation_steps=rows // part,
            num_generations=options.group,
            max_completion_length=options.response_length,
            beta=grpo_step.KL_WEIGHT,
            epsilon=grpo_step.CLIP,
            learning_rate=grpo_step.LEARNING_RATE,
            weight_decay=0.0,
            lr_scheduler_type="constant",
            max_steps=options.steps,
            temperature=1.0,
            gradient_checkpointing=options.remat == "full",
            use_cpu=True,
            bf16=False,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            generation_kwargs={"eos_token_id": None, "min_new_tokens": options.response_length},
        )
        clock = grpo_step.Clock("trl", trl.__version__, options)
        trl.GRPOTrainer(
            model=folder,
            reward_funcs=score,
            args=settings,
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=tokenizer,
            callbacks=[Timed(clock, rewards)],
        ).train()
        clock.summary()


if __name__ == "__main__":
    main()
