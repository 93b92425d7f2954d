"""Measurements run a notebook's own cells, the setup cell first."""

from benchmarks.notebook_cells import code_cells, first_with, run_silently


def test_the_setup_cell_runs_outside_a_notebook_and_prints_nothing(capsys):
    sources, space = code_cells("08"), {}
    run_silently(sources[:1], space)
    assert space["profile"].name == "tiny"
    assert capsys.readouterr().out == ""


def test_the_cells_that_are_repeated_are_there():
    sources = code_cells("08")
    settings = ("old_per_own = 0", "results[plan] = all_scores(")
    first, last = (first_with(sources, text) for text in settings)
    assert 0 < first < last < len(sources)
