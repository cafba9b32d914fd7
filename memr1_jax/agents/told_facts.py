"""Facts that the manager is told of each turn, where they are not the noted ones."""

import dataclasses
from collections.abc import Sequence

from memr1_jax.agents.agent_config import AgentConfig
from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.extractor import (
    ExtractorOptions,
    FactExtractor,
    create_extractor,
    with_extracted_facts,
    without_notes,
)
from memr1_jax.data.encode import Encoder, create_encoder
from memr1_jax.data.types import Conversation
from memr1_jax.models.loading import Model, load_model
from memr1_jax.parallel.distributed import is_main
from memr1_jax.run.progress import progress_bar


def extractor_of(options: AgentConfig, chosen: ExtractorOptions, model: Model) -> FactExtractor:
    """Makes the fact extractor that the options describe, of a model."""
    return create_extractor(
        model,
        options.manager_prompt,
        options.max_prompt_length,
        chosen.response_length,
        prompt=chosen.prompt,
        turn_width=chosen.turn_width,
    )


@dataclasses.dataclass(frozen=True)
class Extraction:
    """Holds a fact extractor, the model that it writes with, and the encoder of what it reads."""

    extractor: FactExtractor
    model: Model
    encoder: Encoder


def extraction_of(
    options: AgentConfig, chosen: ExtractorOptions, pair: AgentPair, models: Models
) -> Extraction:
    """Makes the fact extractor of `chosen.model`, or else of the manager's model."""
    model, encoder = models.manager, pair.encoder
    if chosen.model:
        model = load_model(chosen.model, dtype=options.dtype, remat=options.remat)
        encoder = create_encoder(model.tokenizer, encoder.embedder, encoder.sizes)
    return Extraction(extractor_of(options, chosen, model), model, encoder)


def with_told_facts(
    options: AgentConfig,
    chosen: ExtractorOptions,
    pair: AgentPair,
    models: Models,
    dialogues: Sequence[Conversation],
    what: str,
    params: dict | None = None,
) -> list[Conversation]:
    """Returns dialogues with the facts that `--facts` names: noted, turns, or extracted.

    The extractor has the weights `params` in the manager's model, or else those that its own model
    was loaded with: a resumed run extracts the same facts again.
    """
    if chosen.facts == "noted" or not dialogues:
        return list(dialogues)
    if chosen.facts == "turns":
        return without_notes(dialogues)
    if params is not None:
        chosen = dataclasses.replace(chosen, model="")
    found = extraction_of(options, chosen, pair, models)
    weights = found.model.params if params is None else params
    with progress_bar(1, f"extracting facts, {what}") as progress:

        def on_turn(done, total):
            progress.resize(total)
            progress.update(done)

        made, counts = with_extracted_facts(
            found.extractor, found.model, weights, found.encoder, dialogues, on_turn
        )
    if is_main():
        told = ", ".join(f"{number} {name}" for name, number in counts.items())
        print(f"Extracted facts, {what}: {told}.")
    return made
