"""What the tests of exercises know: for each exercise the names its cell finds in the notebook, mistakes, and another right answer.

``given``: Python that makes small stand-ins of the notebook's variables; ``mistakes``: ``(code, words of the hint)``; ``another``: a right
answer that is written differently than the folded solution.
"""

CASES = {
    "4.1": {
        "mistakes": [("gain = 1 / 3", "MRR"), ("gain = 1 / math.log2(3)", "second place")],
        "given": "import math",
        "another": "gain = math.log(2) / math.log(4)",
    },
}
