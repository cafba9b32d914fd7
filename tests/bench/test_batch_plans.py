"""Which prompts share a batch."""

import numpy as np

from memr1_jax.bench.batch_plans import bucket, plan, rows_of


def arrange(prompts, kinds=None, rows=4, tokens=10**6, response=10, fixed=()):
    prompts = [np.array(prompt, np.int32) for prompt in prompts]
    kinds = kinds or [0] * len(prompts)
    batches = plan(prompts, kinds, rows, tokens, [response] * len(prompts), fixed)
    places = sorted(place for batch in batches for place in batch.places)
    assert places == list(range(len(prompts)))
    return [(batch.places, batch.prefix) for batch in batches]


def test_lengths_are_few_and_never_too_short():
    sizes = sorted({bucket(length) for length in range(1, 1000)})
    assert sizes == [64, 128, 256, 384, 512, 768, 1024]
    assert all(bucket(size) == size for size in sizes)
    assert [bucket(64), bucket(65), bucket(257)] == [64, 128, 384]
    assert [rows_of(count, 8) for count in (1, 2, 3, 5, 8, 9)] == [1, 2, 4, 8, 8, 8]


def test_long_prompts_come_together():
    prompts = [[i] * length for i, length in enumerate((30, 900, 31, 800, 20))]
    assert arrange(prompts) == [((4, 0, 2), 0), ((3, 1), 0)]


def test_rows_and_tokens_bound_a_batch():
    prompts = [[i] * 30 for i in range(6)]
    assert arrange(prompts) == [((0, 1, 2, 3), 0), ((4, 5), 0)]
    assert arrange(prompts, tokens=2 * (64 + 10)) == [((0, 1), 0), ((2, 3), 0), ((4, 5), 0)]
    assert arrange([[1] * 500], tokens=20) == [((0,), 0)]


def test_rows_of_padding_are_few_where_prompts_are_long():
    prompts = [[i] * 400 for i in range(5)]
    assert arrange(prompts, rows=8, response=10) == [((0, 1, 2, 3), 0), ((4,), 0)]
    # Here a longer response makes decoding twice the dearer choice.
    assert arrange(prompts, rows=8, response=20) == [((0, 1, 2, 3, 4), 0)]
    assert arrange(prompts[:4], rows=8, response=1) == [((0, 1, 2, 3), 0)]


def test_kinds_stay_apart():
    assert arrange([[1], [2], [3]], kinds="aba") == [((0, 2), 0), ((1,), 0)]


def test_conversations_with_many_questions_are_prefixes():
    first, second = list(range(200)), list(range(500, 700))
    prompts = [first + [1000 + i] * 5 for i in range(3)] + [second + [2000 + i] for i in range(2)]
    assert arrange(prompts) == [((0, 1, 2), 192), ((3, 4), 192)]


def test_an_instruction_is_the_prefix_of_all():
    prompts = [list(range(70)) + [1000 + i] * 40 for i in range(4)]
    assert arrange(prompts) == [((0, 1, 2, 3), 64)]


def test_equal_prompts_keep_a_token_of_their_own():
    assert arrange([list(range(64))] * 2) == [((0, 1), 32)]


def test_what_is_fixed_is_a_prefix_even_of_one():
    instruction = list(range(70))
    prompts = [instruction + [9000] * 40 + [9001 + i] * 60 for i in range(2)]
    assert arrange(prompts[:1], fixed=[70]) == [((0,), 64)]
    # What two share beyond it by chance makes no other prefix; much more does.
    assert arrange(prompts, fixed=[70, 70]) == [((0, 1), 64)]
    assert arrange(prompts, fixed=[40, 40]) == [((0, 1), 96)]
    assert arrange(prompts) == [((0, 1), 96)]
