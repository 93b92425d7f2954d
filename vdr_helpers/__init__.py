"""Helpers behind the notebooks of the visual document retrieval course; importing this package
imports nothing heavy.

Start at ``notebooks/00_start_here.ipynb``. A helper is either plumbing or code that a notebook has
shown before it is called.
"""
