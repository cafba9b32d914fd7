"""What the manager is told of each turn, where it is not what the data note."""

from collections.abc import Sequence

from memr1_jax.agents.agent_pair import AgentPair, Models
from memr1_jax.agents.extractor import create_extractor, with_extracted_facts, without_notes
from memr1_jax.data.types import Conversation
from memr1_jax.parallel.distributed import is_main
from memr1_jax.run.progress import progress_bar
from memr1_jax.training.config import EvaluationConfig, ExperimentConfig


def with_told_facts(
    options: ExperimentConfig | EvaluationConfig,
    pair: AgentPair,
    models: Models,
    dialogues: Sequence[Conversation],
    what: str,
) -> list[Conversation]:
    """Returns dialogues with the facts that `--facts` names: noted, turns, or extracted.

    The extractor has the weights that the manager's model was loaded with; with each run they are
    the same, so that a resumed run extracts the same facts again.
    """
    chosen = options.extraction
    if chosen.facts == "noted" or not dialogues:
        return list(dialogues)
    if chosen.facts == "turns":
        return without_notes(dialogues)
    extractor = create_extractor(
        models.manager,
        options.manager_prompt,
        options.max_prompt_length,
        chosen.response_length,
        prompt=chosen.prompt,
        turn_width=chosen.turn_width,
    )
    with progress_bar(1, f"extracting facts, {what}") as progress:

        def on_turn(done, total):
            progress.resize(total)
            progress.update(done)

        made, counts = with_extracted_facts(
            extractor, models.manager, models.manager.params, pair.encoder, dialogues, on_turn
        )
    if is_main():
        told = ", ".join(f"{number} {name}" for name, number in counts.items())
        print(f"Extracted facts, {what}: {told}.")
    return made
