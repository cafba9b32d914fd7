"""Both agents and what they share, built from options and loaded models."""

import dataclasses
import functools
from typing import Any

from jax.sharding import Mesh

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.judge import Judge, create_judge
from memr1_jax.agents.manager import MemoryManager
from memr1_jax.agents.outcomes import FRESH, RECALL
from memr1_jax.agents.targets import LABEL
from memr1_jax.agents.templates import load_template
from memr1_jax.agents.tools import Tools, create_tools
from memr1_jax.data.encode import Encoder, Sizes, create_encoder
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.memory.build_embedder import build_static, build_tfidf
from memr1_jax.memory.embedder import Embedder, concatenate_embedders
from memr1_jax.models.hf.wheels import wheel_member
from memr1_jax.models.loading import Model, load_model
from memr1_jax.text.byte_table import begins_character, build_byte_table
from memr1_jax.text.grammar import build_grammar, fewest_tokens
from memr1_jax.text.plain import plain_encoder
from memr1_jax.text.strata import build_strata

EVIDENCE = 8  # turns of evidence that are kept of a question


@dataclasses.dataclass(frozen=True)
class Models:
    """Holds the models that act, answer and judge; they may be one and the same."""

    manager: Model
    answerer: Model
    judge: Model | None

    def of(self, agent: str) -> Model:
        """Returns the model of "manager" or "answer", or of the "extractor", the manager's."""
        return self.answerer if agent == "answer" else self.manager


def load_models(options: AgentConfig, mesh: Mesh | None = None) -> Models:
    """Loads the models of the manager, the Answer Agent and, if it gives the reward, the judge.

    Raises:
      UserError: their tokenizers differ; memories and answers travel between them as tokens.
    """
    load = functools.partial(
        load_model,
        dtype=options.dtype,
        remat=options.remat,
        attention=options.attention,
        mesh=mesh,
    )
    loaded = {options.model: load(options.model)}

    def find(flag):
        name = getattr(options, flag, "") or options.model
        if name not in loaded:
            loaded[name] = load(name)
        check_same_tokens(loaded[name].tokenizer, loaded[options.model].tokenizer, flag, options)
        return loaded[name]

    judged = getattr(options, "reward", None) is not None and options.reward.judged
    return Models(find("model"), find("answer_model"), find("judge_model") if judged else None)


def check_same_tokens(tokenizer: Any, other: Any, flag: str, options: AgentConfig) -> None:
    """Raises UserError where the model that `flag` names has another vocabulary than `--model`."""
    if tokenizer is not other and tokenizer.get_vocab() != other.get_vocab():
        raise UserError(
            f"--{flag}={getattr(options, flag)} has another tokenizer than --model={options.model}."
            " Memories travel between the agents as tokens: use models of one family."
        )


@dataclasses.dataclass(frozen=True)
class AgentPair:
    """Holds the two agents, the judge if one gives the reward, and what they share."""

    manager: MemoryManager
    answerer: AnswerAgent
    judge: Judge | None
    tools: Tools
    encoder: Encoder


def build_agent_pair(
    options: AgentConfig,
    models: Models,
    conversations: list[Conversation],
    embedder: Embedder | None = None,
) -> AgentPair:
    """Builds agents, tools and encoder for the models; `conversations` give the word statistics.

    With an `embedder` they are not looked at.

    Raises:
      UserError: the prompts leave no room for memories, or the model cannot hold them.
    """
    model = models.manager
    table = build_byte_table(model.tokenizer, model.config.vocab_size)
    reward = getattr(options, "reward", None)
    sizes = Sizes(
        memory_width=options.memory_width,
        bank_capacity=options.bank_capacity,
        facts=options.facts_per_turn,
        questions=options.questions_per_turn,
        retained=getattr(options, "retention_questions", 0),
        evidence=EVIDENCE if _asks_where_memories_come_from(reward) else 0,
    )
    if embedder is None:
        embedder = build_embedder(options, model, conversations)
    numbers = max(options.memories_shown, options.memories, options.facts_per_turn)
    load = functools.partial(load_template, tokenizer=model.tokenizer, numbers=numbers)
    manager_template, answer_template = (
        load(getattr(options, f"{role}_prompt"), role=role, thinking=options.thinks(role))
        for role in ("manager", "answer")
    )
    schema = manager_template.head.schema
    grammar = None
    if options.constrained:
        grammar = build_grammar(schema, table, model.stop_tokens, options.memories_shown)
        if options.manager_response_length < fewest_tokens(grammar):
            raise UserError(
                f"--manager_response_length={options.manager_response_length} is too short for any"
                f" operation in the {schema} schema. Raise it to {fewest_tokens(grammar)} or more."
            )
    policy, strata = getattr(options, "policy", None), None
    if policy is not None and policy.stratified:
        if schema != "compact":
            raise UserError(
                f"--stratified needs a manager's prompt of the compact schema, but"
                f" {manager_template.name} is of the {schema} one. Give another --manager_prompt."
            )
        strata = build_strata(table, options.memories_shown)
    # The full schema also lists the memories that stay as they are.
    listed = options.memories_shown if schema == "full" else 0
    manager = MemoryManager(
        template=manager_template,
        prompt_length=_room(options, model, manager_template, options.manager_response_length),
        response_length=options.manager_response_length,
        stop_tokens=model.stop_tokens,
        operations=options.facts_per_turn + listed,
        neighbours=options.neighbours,
        shown=options.memories_shown,
        salvage=options.salvage,
        draft_tokens=options.draft_tokens,
    )
    answerer = AnswerAgent(
        template=answer_template,
        prompt_length=_room(
            options, models.answerer, answer_template, options.answer_response_length
        ),
        response_length=options.answer_response_length,
        stop_tokens=model.stop_tokens,
        memories=options.memories,
        draft_tokens=options.draft_tokens,
        label=tuple(plain_encoder(model.tokenizer)(LABEL)),
    )
    tools = create_tools(table, embedder, grammar, strata)
    encoder = create_encoder(model.tokenizer, tools.embedder, sizes, begins_character(table))
    judge = None
    if models.judge is not None:
        template = load_template(options.judge_prompt, models.judge.tokenizer, role="judge")
        judge = create_judge(template, models.judge.decoder, models.judge.tokenizer)
    return AgentPair(manager, answerer, judge, tools, encoder)


def _asks_where_memories_come_from(reward) -> bool:
    return reward is not None and any(reward.weight_of(name) for name in (RECALL, FRESH))


def build_embedder(
    options: AgentConfig, model: Model, conversations: list[Conversation]
) -> Embedder:
    """Builds the embedder that `options.embedder` names, with NumPy leaves."""
    vocab = model.config.vocab_size
    texts = [turn.text for conversation in conversations for turn in conversation.turns]
    tfidf = build_tfidf(model.tokenizer, vocab, texts, options.features)
    if options.embedder == "tfidf":
        return tfidf
    files = [
        wheel_member("wordllama", f"wordllama/{member}")
        for member in (
            "weights/l2_supercat_256.safetensors",
            "tokenizers/l2_supercat_tokenizer_config.json",
        )
    ]
    static = build_static(model.tokenizer, vocab, texts, *files)
    return static if options.embedder == "static" else concatenate_embedders(tfidf, static)


def _room(options, model, template, response_length):
    """Counts the tokens that the instruction leaves for the rest of the prompt."""
    room = options.max_prompt_length - len(template.instruction)
    needed = template.fixed_length + 2 * options.memory_width
    if room < needed:
        raise UserError(
            f"--max_prompt_length={options.max_prompt_length} is too short: the prompt"
            f" {template.name} has {len(template.instruction)} tokens of instruction and needs"
            f" about {needed} more before it shows any memory. Raise it to at least"
            f" {len(template.instruction) + needed}."
        )
    total = options.max_prompt_length + response_length
    if total > model.config.max_positions:
        raise UserError(
            f"Prompt and response of {template.name} take up to {total} tokens, but {model.folder}"
            f" has {model.config.max_positions} positions. Lower --max_prompt_length or the"
            " response length."
        )
    return room
