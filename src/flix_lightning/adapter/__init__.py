"""Featurized Low-Rank Mixtures: every feature of an example owns a low-rank update of the frozen weights.

Equation 2 of the paper, for an example x whose active features are ``features``::

    W = W0 + sum(B[f] @ A[f] for f in features)  # A[f]: [rank of f, d_in], B[f]: [d_out, rank of f]
    y = W @ x

`reference` is that equation in plain PyTorch. `projection` computes the same for a batch in which every
example has its own features, at the cost of the active ranks alone::

    space = FeatureSpace({"task:ner": 4, "task:qa": 4, "language:sw": 2})
    adapter = inject(model, space, targets="all-linear")  # model: any Hugging Face model
    loss = model(**batch, features=[("task:ner", "language:sw"), ("task:qa",)]).loss  # of two examples
    loss.backward()  # gives gradients to adapter.parameters() alone
"""

from flix_lightning.adapter.features import FeatureDropout, FeatureSpace, resolve_ranks
from flix_lightning.adapter.layers import compile_layers
from flix_lightning.adapter.lazy_adam import LazyAdam
from flix_lightning.adapter.projection import Adapter, inject, load_adapter

__all__ = [
    "Adapter",
    "FeatureDropout",
    "FeatureSpace",
    "LazyAdam",
    "compile_layers",
    "inject",
    "load_adapter",
    "resolve_ranks",
]
