"""Everything an experiment works with, made from its options: models, data, tools and agents."""

import dataclasses
from collections.abc import Callable

from memr1_jax.agents.answer import AnswerAgent
from memr1_jax.agents.ingest import Ingestion, add_everything, ingest, make_ingest_turn
from memr1_jax.agents.judge import Judge, create_judge
from memr1_jax.agents.manager import MemoryManager
from memr1_jax.agents.templates import load_template
from memr1_jax.agents.tools import Tools, create_tools
from memr1_jax.data.encode import Encoder, Sizes, create_encoder
from memr1_jax.data.types import Conversation
from memr1_jax.errors import UserError
from memr1_jax.evals.evaluator import Evaluation, make_evaluator
from memr1_jax.evals.report.replay import DialogueRecord
from memr1_jax.evals.report.watch import Seen, replay
from memr1_jax.memory.build_embedder import build_static, build_tfidf
from memr1_jax.memory.embedder import Embedder, concatenate_embedders
from memr1_jax.models.hf.wheels import wheel_member
from memr1_jax.run.progress import progress_bar
from memr1_jax.text.byte_table import begins_character, build_byte_table
from memr1_jax.text.grammar import build_grammar, fewest_tokens
from memr1_jax.training.config import AgentConfig, EvalConfig
from memr1_jax.training.loading import Model, Models


@dataclasses.dataclass(frozen=True)
class Workbench:
    """The two agents and what they share."""

    manager: MemoryManager
    answerer: AnswerAgent
    judge: Judge | None
    tools: Tools
    encoder: Encoder


class Pipeline:
    """Both agents at work on whole dialogues, with progress bars; compiled once for all calls."""

    def __init__(self, options: EvalConfig, bench: Workbench, models: Models):
        """Compiles nothing yet; the models give networks and tokenizer, not the parameters."""
        self._bench = bench
        self._tokenizer = models.manager.tokenizer
        self._ingest_turn = make_ingest_turn(bench.manager, models.manager.decoder)
        self._evaluate = make_evaluator(
            bench.answerer,
            models.answerer.decoder,
            bench.tools,
            bench.encoder,
            models.answerer.tokenizer,
            batch=options.eval_batch,
            limit=options.eval_questions,
            plain_marks=options.plain_marks,
        )

    def banks(
        self,
        params: dict | None,
        dialogues: list[Conversation],
        what: str,
        watched: Callable[[Callable], Callable] = lambda ingest_turn: ingest_turn,
    ) -> Ingestion:
        """Banks of all speakers of `dialogues` (NumPy), built with the manager's `params`.

        Without parameters they hold every noted fact as it came. `watched` may put something around
        the function that ingests a turn, see `evals.watch`.
        """
        with progress_bar(1, f"building banks, {what}") as progress:

            def on_turn(done, total, turn):
                progress.resize(total)
                progress.update(done)

            return ingest(
                watched(self._ingest_turn if params is not None else add_everything),
                params,
                self._bench.tools,
                self._bench.encoder,
                dialogues,
                on_turn,
            )

    def evaluate(
        self, params: dict, dialogues: list[Conversation], banks: Ingestion, what: str
    ) -> Evaluation:
        """Answers the questions with the Answer Agent's `params` and scores the answers."""
        with progress_bar(1, f"answering, {what}") as progress:

            def on_batch(done, total):
                progress.resize(total)
                progress.update(done)

            return self._evaluate(params, dialogues, banks, on_batch)

    def replay(
        self, seen: list[Seen], dialogues: list[Conversation], evaluation: Evaluation
    ) -> list[DialogueRecord]:
        """What `evals.watch.watch` saw while the banks of an evaluation were built, as text."""
        bench, predictions = self._bench, evaluation.predictions
        return replay(
            seen,
            dialogues,
            predictions,
            bench.manager,
            bench.tools,
            bench.encoder,
            self._tokenizer,
        )


def build_workbench(
    options: AgentConfig,
    models: Models,
    conversations: list[Conversation],
    embedder: Embedder | None = None,
) -> Workbench:
    """Agents, tools and encoder for the models; `conversations` give the word statistics.

    With an `embedder` they are not looked at.

    Raises:
      UserError: the prompts leave no room for memories, or the model cannot hold them.
    """
    model = models.manager
    table = build_byte_table(model.tokenizer, model.config.vocab_size)
    sizes = Sizes(
        memory_width=options.memory_width,
        bank_capacity=options.bank_capacity,
        facts=options.facts_per_turn,
        questions=options.questions_per_turn,
    )
    if embedder is None:
        embedder = build_embedder(options, model, conversations)
    numbers = max(options.memories_shown, options.memories, options.facts_per_turn)
    manager_template, answer_template = (
        load_template(name, model.tokenizer, role=role, numbers=numbers)
        for role, name in (("manager", options.manager_prompt), ("answer", options.answer_prompt))
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
    )
    answerer = AnswerAgent(
        template=answer_template,
        prompt_length=_room(
            options, models.answerer, answer_template, options.answer_response_length
        ),
        response_length=options.answer_response_length,
        stop_tokens=model.stop_tokens,
        memories=options.memories,
    )
    tools = create_tools(table, embedder, grammar)
    encoder = create_encoder(model.tokenizer, tools.embedder, sizes, begins_character(table))
    judge = None
    if models.judge is not None:
        template = load_template(options.judge_prompt, models.judge.tokenizer, role="judge")
        judge = create_judge(template, models.judge.decoder, models.judge.tokenizer)
    return Workbench(manager, answerer, judge, tools, encoder)


def build_embedder(
    options: AgentConfig, model: Model, conversations: list[Conversation]
) -> Embedder:
    """The embedder that `options.embedder` names, with NumPy leaves."""
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
    """Tokens of a prompt beside the instruction."""
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
