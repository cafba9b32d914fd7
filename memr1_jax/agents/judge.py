"""A frozen language model that judges answers: its log-odds of yes against no are a reward.

Question, gold answer and answer are tokens, and the judge reads them as tokens, so that it needs
the tokenizer of the agents and nothing leaves the device.

Axis letters: R response length, W tokens of a question or an answer, P prompt length, V vocabulary.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from memr1_jax.agents.answer import BYTES_PER_TOKEN
from memr1_jax.agents.templates import Template, fill, single
from memr1_jax.agents.tools import Tools
from memr1_jax.errors import UserError
from memr1_jax.models.decoder import Block, Decoder
from memr1_jax.models.hf.tokenizer import inner_encoder
from memr1_jax.options import at_least, option
from memr1_jax.parallel.activations import spread
from memr1_jax.text.answer_span import answer_span
from memr1_jax.text.byte_table import tokens_to_bytes
from memr1_jax.text.normalize import decode_utf8
from memr1_jax.text.white_space import is_line_break, latest


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """Set how --reward=judge and the manager's reward consult other models."""

    judge_model: str = option("", "Model that judges for --reward=judge; empty: --model.")
    judge_prompt: str = option("compact", "Prompt file judge_<name>.txt, or the path of your own.")
    consult_batch: int = option(
        0,
        "Distinct prompts that the frozen Answer Agent answers at a time for the manager; 0: all on"
        " an accelerator, about an eighth on a CPU.",
        within=at_least(0),
    )


@dataclasses.dataclass(frozen=True)
class Judge:
    """Prompt and network of the judge, and the tokens that it answers with; static under `jit`."""

    template: Template  # with the slots question, gold and answer
    decoder: Decoder
    yes: tuple[int, ...]  # spellings of yes that are one token
    no: tuple[int, ...]
    answer_width: int  # tokens of an answer that are read


def create_judge(
    template: Template, decoder: Decoder, tokenizer, *, answer_width: int = 64
) -> Judge:
    """Creates a judge with the prompt `template`, for the network `decoder`.

    Args:
      template: a prompt that asks for yes or no as the first word.
      decoder: the judge's network.
      tokenizer: its `transformers` tokenizer, which is that of the agents.
      answer_width: tokens of an answer that are read; a wordy answer should fit, since
        text that the judge does not see costs nothing.

    Raises:
      UserError: the tokenizer has no token for yes, or none for no.
    """
    yes, no = (_spellings(tokenizer, word) for word in ("yes", "no"))
    return Judge(template, decoder, yes, no, answer_width)


def _spellings(tokenizer, word):
    forms = (space + form for space in ("", " ") for form in (word, word.title(), word.upper()))
    encoded = [*map(inner_encoder(tokenizer), forms)]
    found = {tokens[0] for tokens in encoded if len(tokens) == 1}
    if not found:
        raise UserError(
            f"This model's tokenizer has no single token for the word {word!r}, so the model cannot"
            " be asked to judge. Use another model, or a reward other than judge."
        )
    return tuple(sorted(found))


@jax.jit
def answer_block(tools: Tools, tokens: jax.Array, length: jax.Array) -> Block:
    """Returns the answer in one response `[R]`, as tokens at the front of a row `[R]`.

    Whole tokens: the first and the last may bring a space or a mark that the answer itself lacks.
    Tokens that spell nothing are left out, so that no answer can end the judge's message, and those
    with part of a line break in them are spaces, so that it is one line.
    """
    width = tokens.shape[-1]
    text = tokens_to_bytes(tools.byte_table, tokens, length, width * BYTES_PER_TOKEN)
    start, end, _ = answer_span(text.bytes, text.length)
    size = jnp.where(jnp.arange(width) < length, tools.byte_table.length[tokens], 0)
    after = jnp.cumsum(size)
    inside = (size > 0) & (after > start) & (after - size < end) & (start < end)
    place = jnp.where(inside, jnp.cumsum(inside) - 1, width)
    code, begins = decode_utf8(text.bytes, jnp.int32(0), text.length)
    code = code[jnp.maximum(latest(begins), 0)]  # of the character that a byte is part of
    byte = jnp.arange(len(code)) < text.length
    broken = jnp.zeros(width, bool).at[text.token].max(is_line_break(code) & byte)
    tokens = jnp.where(broken, tools.byte_table.byte_token[ord(" ")], tokens)
    front = jnp.zeros_like(tokens).at[place].set(tokens, mode="drop")
    return Block(front, jnp.sum(inside, dtype=jnp.int32))


def judge_log_odds(
    judge: Judge, params: dict, tools: Tools, question: Block, gold: Block, answer: Block
) -> jax.Array:
    """Returns log-odds `[*rows]` that the judge's first word is yes, log p(yes) - log p(no).

    Spellings of a word count together. One prefill; the instruction is shared by all rows.

    Args:
      judge: prompt, network and the tokens of both words.
      params: the network's parameters.
      tools: see `Tools`.
      question: `[*rows, W]` in the form after a colon, with a leading space; rows broadcast.
      gold: the same of the gold answer.
      answer: `[*rows, W]`, see `answer_block`; tokens beyond `judge.answer_width` are not read.
    """
    return log_odds(judge, params, judge_prompt(judge, tools, question, gold, answer))


def log_odds(judge: Judge, params: dict, prompt: Block) -> jax.Array:
    """Returns the log-odds `[*rows]` of `judge_log_odds` for prompts of `judge_prompt`."""
    blocks = (judge.template.instruction_block, prompt)
    variables = {"params": params}
    hidden, _ = judge.decoder.apply(variables, blocks, method=Decoder.prefill)
    logits = spread(judge.decoder.apply(variables, hidden, method=Decoder.logits))
    yes, no = (
        jax.nn.logsumexp(logits[..., jnp.asarray(tokens)], axis=-1)
        for tokens in (judge.yes, judge.no)
    )
    return yes - no


@functools.partial(jax.jit, static_argnums=0)
def judge_prompt(judge: Judge, tools: Tools, question: Block, gold: Block, answer: Block) -> Block:
    """Writes the prompt `[*rows, P]` under the instruction; see `judge_log_odds`.

    P is the most that the texts may need, so that only a long answer is cut.
    """
    width = min(judge.answer_width, answer.tokens.shape[-1])
    widths = (question.tokens.shape[-1], gold.tokens.shape[-1], width)
    empty = sum(len(text) for _, text in judge.template.empty)
    capacity = judge.template.fixed_length + sum(widths) + empty

    def write(question, question_length, gold, gold_length, answer, answer_length):
        answer = answer.at[0].set(tools.after_space(answer[0]))
        slots = {
            "question": single(question, question_length),
            "gold": single(gold, gold_length),
            "answer": single(answer[:width], jnp.minimum(answer_length, width)),
        }
        packed = fill(judge.template, slots, capacity)
        return packed.tokens, packed.length

    write = jnp.vectorize(write, signature="(a),(),(b),(),(c),()->(p),()")
    texts = (question, gold, answer)
    return Block(*write(*(leaf for text in texts for leaf in (text.tokens, text.length))))
