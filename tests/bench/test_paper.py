"""The paper's figures: overalls follow from their columns, and notes say what was wrong."""

import pytest

from memr1_jax.bench.paper import (
    FIGURES,
    OVERALL,
    TABLES,
    paper_latency,
    paper_markdown,
    paper_table,
)
from memr1_jax.evals.metrics import CATEGORIES

# On two conversations alone, so not weighted by the numbers of questions of the table.
ELSEWHERE = {("locomo", "Zep")}


def paper_row(name, backbone, method):
    """Returns the one row of a table that has this backbone and method."""
    rows = paper_table(name).rows
    (row,) = [row for row in rows if (row.backbone, row.method) == (backbone, method)]
    return row


def gaps(name, row):
    """Returns how far each overall figure is from the mean of the columns, by questions."""
    columns = [column for column in paper_table(name).columns if column.key != OVERALL]
    total = sum(column.count for column in columns)
    return [
        row.figures[OVERALL][place]
        - sum(column.count * row.figures[column.key][place] for column in columns) / total
        for place in range(len(FIGURES))
    ]


@pytest.mark.parametrize("name", ["locomo", "scaling", "longmemeval"])
def test_overalls_are_the_weighted_means_of_their_columns(name):
    """Allows for rounding: half a last digit of the overall, and as much of the columns' mean."""
    checked = 0
    for row in paper_table(name).rows:
        within = all(abs(gap) <= 10.0**-row.decimals + 2e-4 for gap in gaps(name, row))
        assert within == ((name, row.method) not in ELSEWHERE), (row.backbone, row.method)
        checked += within
    assert checked == {"locomo": 14, "scaling": 9, "longmemeval": 6}[name]


@pytest.mark.parametrize(
    ("name", "backbone", "method", "column", "figure", "printed"),
    [
        ("locomo", "Llama-3.1-8B", "A-Mem", "1", 2, 44.76),
        ("locomo", "Qwen2.5-7B", "A-Mem", "1", 2, 40.78),
        ("locomo", "Qwen2.5-7B", "Mem0", OVERALL, 2, 53.30),
        ("scaling", "Qwen2.5-7B", "Memory-R1 (GRPO)", "4", 1, 48.99),
    ],
)
def test_corrections_are_told_and_needed(name, backbone, method, column, figure, printed):
    row = paper_row(name, backbone, method)
    assert row.figures[column][figure] != printed
    assert any(f"{printed:.2f}" in note for note in row.notes)
    (count,) = [c.count for c in paper_table(name).columns if c.key == column]
    weight = 1 if column == OVERALL else count / 1307
    assert weight * abs(row.figures[column][figure] - printed) > 0.02  # beyond all rounding


def test_sizes_and_true_names_of_the_columns():
    for name in ("locomo", "scaling"):
        *columns, overall = paper_table(name).columns
        assert [(c.key, c.count) for c in columns] == [
            ("1", 239),
            ("3", 83),
            ("4", 727),
            ("2", 258),
        ]
        assert [c.name for c in columns] == [
            f"{c.key} {CATEGORIES[int(c.key)][0]}" for c in columns
        ]
        assert overall.count == sum(c.count for c in columns) == 1307
        assert any("permutes the names" in note for note in paper_table(name).notes)
    *columns, overall = paper_table("longmemeval").columns
    assert overall.count == sum(c.count for c in columns) == 500


def test_rows_that_are_in_two_tables_agree():
    """Compares exact match as reward with table 1's PPO row, and the ablations' full rows."""
    table_1 = paper_row("locomo", "Llama-3.1-8B", "Memory-R1 (PPO)").figures[OVERALL]
    reward = paper_row("ablations", "Llama-3.1-8B", "reward: exact match (Answer Agent, PPO)")
    assert reward.figures[OVERALL] == table_1
    for kind in ("PPO", "GRPO"):
        full = paper_row("ablations", "Llama-3.1-8B", f"both agents trained ({kind})")
        whole = paper_row("locomo", "Llama-3.1-8B", f"Memory-R1 ({kind})")
        assert full.figures[OVERALL] == pytest.approx(whole.figures[OVERALL], abs=0.06)


@pytest.mark.parametrize("name", TABLES)
def test_markdown_has_every_row_and_note(name):
    table, text = paper_table(name), paper_markdown(name)
    assert text.count("\n| ") == len(table.rows) + 2
    for row in table.rows:
        assert f"| {row.backbone} | {row.method}" in text
        assert all(note in text for note in row.notes)
    assert all(note in text for note in table.notes)
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {len(table.columns) + 3}


def test_cells_keep_the_digits_of_the_paper():
    text = paper_markdown("ablations")
    assert "| both agents trained (PPO) | 41.0 / 32.9 / 57.5 |" in text
    assert "| Memory Manager trained alone (PPO) | 32.55 / 24.60 / 59.37 |" in text
    assert "| Qwen2.5-7B | Mem0 [" in paper_markdown("locomo")


def test_latency_of_the_answer_agent():
    rows = {(row.stage, row.backbone, row.variant): row for row in paper_latency()}
    row = rows["Answer Agent", "Llama-3.1-8B", "Memory-R1 (GRPO)"]
    assert (row.p50, row.p95) == ("0.34", "0.67")
    assert {stage for stage, *_ in rows} == {"Memory Manager", "search", "Answer Agent"}
