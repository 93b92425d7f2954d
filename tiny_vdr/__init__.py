"""The stand-in world of the course: invented words, the pages drawn from them, a dataset of such
pages, and a small model that reads them.

It stands where the real dataset and the real 2B model stand when there is no network and no GPU.
``vocabulary`` -> ``sheet`` -> ``pages`` -> ``corpus`` (the dataset), ``documents`` (PDF files of a
second domain), and ``model`` -> ``batches`` -> ``pretrain`` (the base model in
``assets/tiny-base``). It imports libraries only and knows nothing of ``vdr_helpers``.
"""
