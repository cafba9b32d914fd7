"""The page of what fits, from results; compiling is tested elsewhere."""

import json

import pytest

from tpu_scripts import tpu_fit
from tpu_scripts.tpu_fit import GIB, Cell, cells, implied, page, read_results

FITS = {
    "fits": True,
    "layout": "--mesh=data:1,fsdp:8,tensor:1 --micro_batches=2",
    "peak": 5 * GIB,
    "least_seconds": 1.25,
}
NO = {"fits": False, "arguments": 20 * GIB, "usable": 15 * GIB, "attempts": 0}


def paper(chips, **changes):
    return Cell("paper", "llama-3.1-8b", chips, tpu_fit.CHIPS[chips], **changes)


def row_of(text, cell):
    wanted = f"| {cell.model} | full | answer | GRPO | {cell.chips} |"
    return text.split("## The paper's lengths: the Answer")[1].split(wanted)[1].splitlines()[0]


def test_every_cell_has_its_own_key_and_usable_options():
    keys = [cell.key for cell in cells()]
    assert len(keys) == len(set(keys))
    for cell in cells():
        options = cell.options()
        if cell.table in ("target", "paper"):
            assert options.batch * options.policy.group == 128
        assert options.batch % options.policy.micro_batches == 0
        assert options.lora_rank == cell.lora_rank


def test_what_fits_onto_less_fits_onto_more():
    results = {paper("v5e-8").key: FITS, paper("v5e-1").key: NO}
    for chips in ("v5e-16", "v6e-8", "v5p-8", "v5p-64"):
        assert implied(paper(chips), results) == "v5e-8"
    assert implied(paper("v5e-8"), results) == implied(paper("v5e-1"), results) == ""
    assert implied(paper("v5e-16", lora_rank=16), results) == ""
    assert implied(paper("v5e-16"), {paper("v6e-8").key: FITS}) == ""  # larger chips


def test_the_page_tells_what_was_found():
    results = {
        paper("v5e-1").key: NO,
        paper("v5e-8").key: NO | {"arguments": 12 * GIB, "attempts": 2},
        paper("v5e-16").key: NO | {"arguments": 6 * GIB},
        paper("v6e-8").key: FITS,
        paper("v5p-64").key: {"fits": False, "why": "cannot be divided"},
    }
    text = page(results)
    assert "no (arguments alone 20.0 GiB)" in row_of(text, paper("v5e-1"))
    assert row_of(text, paper("v5e-8")) == "  |  | no |  |"
    assert "no, by estimate (arguments 6.0 GiB)" in row_of(text, paper("v5e-16"))
    row = " data:1,fsdp:8,tensor:1 micro_batches=2 | 5.00 GiB | yes | 1.25 s |"
    assert row_of(text, paper("v6e-8")) == row
    assert "| yes, as onto v6e-8 |" in row_of(text, paper("v5p-8"))
    assert "no: the batch" in row_of(text, paper("v5p-64"))
    assert text.count("| not compiled |") == len(cells()) - 6


def test_the_page_marks_what_was_estimated():
    fits = FITS | {"estimated": True, "arguments": 2 * GIB, "usable": 15 * GIB, "attempts": 0}
    text = page({paper("v5e-8").key: fits, paper("v5e-16").key: fits | {"fits": False}})
    row = " data:1,fsdp:8,tensor:1 micro_batches=2 | about 5 GiB | yes, by estimate | 1.25 s |"
    assert row_of(text, paper("v5e-8")) == row
    assert "no, by estimate (arguments 2.0 GiB)" in row_of(text, paper("v5e-16"))


def test_a_line_that_was_cut_off_is_compiled_again(tmp_path):
    path = tmp_path / "results.jsonl"
    assert read_results(path) == {}
    path.write_text(json.dumps({"key": "a"} | NO) + "\n" + json.dumps({"key": "b"} | FITS)[:-9])
    assert read_results(path) == {"a": NO}


@pytest.mark.parametrize("chips", [*tpu_fit.CHIPS, *tpu_fit.TARGETS])
def test_names_count_their_chips(chips):
    topology = (tpu_fit.CHIPS | tpu_fit.TARGETS)[chips]
    sizes = [int(size) for size in topology.split(":")[1].split("x")]
    total = 1
    for size in sizes:
        total *= size
    assert chips == f"{topology.split(':')[0]}-{total}"
