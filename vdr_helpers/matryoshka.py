"""Seven truncated evaluations for the price of one encoding; notebook 03 builds it, notebook 05 shows why it is allowed."""

from __future__ import annotations

from collections.abc import Sequence

from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator, SequentialEvaluator


class SharedEncoding(InformationRetrievalEvaluator):
    """An ``InformationRetrievalEvaluator`` that takes its embeddings from ``encoded`` and encodes only what is not there yet.

    ``encoded`` maps ``"query"`` and ``"document"`` to tensors of shape (items, full width); each evaluator slices its own
    ``truncate_dim`` from them. The scores are those of an evaluator that encodes for itself.
    """

    def __init__(self, *args, encoded: dict, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.encoded = encoded

    def embed_inputs(self, model, sentences, encode_fn_name=None, **kwargs):
        if encode_fn_name not in self.encoded:
            own_dim, self.truncate_dim = self.truncate_dim, None  # None: encode at the model's full width
            try:
                self.encoded[encode_fn_name] = super().embed_inputs(model, sentences, encode_fn_name=encode_fn_name, **kwargs)
            finally:
                self.truncate_dim = own_dim
        return self.encoded[encode_fn_name][..., : self.truncate_dim]


class OnePassMatryoshkaEvaluator(SequentialEvaluator):
    """NDCG@10 and the other retrieval metrics at several dimensions, with queries and pages encoded once per call.

    ``queries``, ``corpus``, ``relevant_docs`` and further keyword arguments are those of ``InformationRetrievalEvaluator``. The first of
    ``truncate_dims`` must be the largest: it gives the primary metric and keeps the plain name, ``"<name>_cosine_ndcg@10"``; the others
    are called ``"<name>-<dim>d_cosine_ndcg@10"``. Embeddings are let go at the end of each call, so that a later call sees the weights
    of its own moment. Raises ``ValueError`` when the dimensions are empty or not in falling order, or wider than the model.
    """

    def __init__(
        self, queries: dict, corpus: dict, relevant_docs: dict, truncate_dims: Sequence[int], name: str = "", **settings
    ) -> None:
        dims = list(truncate_dims)
        if not dims or dims != sorted(set(dims), reverse=True):
            raise ValueError(f"truncate_dims must be different numbers, the largest first; got {dims}")
        self.encoded: dict = {}
        self.truncate_dims = dims
        evaluators = [
            SharedEncoding(
                queries,
                corpus,
                relevant_docs,
                encoded=self.encoded,
                truncate_dim=dim,
                name=name if i == 0 else f"{name}-{dim}d",
                corpus_chunk_size=max(1, len(corpus)),  # one chunk: the whole corpus is one entry of the shared embeddings
                **settings,
            )
            for i, dim in enumerate(dims)
        ]
        super().__init__(evaluators, main_score_function=lambda scores: scores[0])

    def __call__(self, model, output_path: str | None = None, epoch: int = -1, steps: int = -1) -> dict[str, float]:
        width = model.get_embedding_dimension()
        if self.truncate_dims[0] > width:
            raise ValueError(f"dimension {self.truncate_dims[0]} does not fit: this model's embeddings have {width} numbers")
        self.encoded.clear()
        try:
            return super().__call__(model, output_path=output_path, epoch=epoch, steps=steps)
        finally:
            self.encoded.clear()
