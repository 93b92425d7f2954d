"""Settings for pytest and nbval that apply to the tests and to the notebooks alike."""


def pytest_collectstart(collector):
    """Leave ``stderr`` out of what nbval compares: library warnings and progress bars differ from
    machine to machine.

    Nothing hides there: ``tests/test_hygiene.py`` fails when a notebook stores anything on
    ``stderr``.
    """
    if hasattr(collector, "skip_compare"):
        collector.skip_compare += ("stderr",)
