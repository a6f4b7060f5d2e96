"""Codes as features for scikit-learn: a transformer from texts to bits or firing rates."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from polytope_lm.codes.capture import encode
from polytope_lm.documents.source import given
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.models.loading import load, select_sites

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float

    from polytope_lm.models.model import Model

Pool = Literal["last", "mean"]


class SplineCode(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Texts in, one row of spline codes a text out; `fit` learns nothing.

    With `pool="last"` a feature is a neuron's bit `1[h_i > 0]` at the text's last token, with `"mean"` its firing rate
    over the text's tokens. Features are the neurons of the chosen layers side by side, `[n, N]` for each layer.

    Args:
        model: a name for `plm.load`, or a loaded `Model`; folds of a cross-validation share it.
        layers: indices, or `all`.
        kind: code kind, or a declared hook point (`Model.with_encoder`); by default the site's own.
        pool: `last` or `mean`.
        bos: as in `plm.encode`.

    Attributes:
        sites_: the sites whose neurons are the features.

    Examples:
        >>> import polytope_lm as plm
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.pipeline import make_pipeline
        >>> texts, label = ["The loop ends", "The list is empty", "The loop stops", "A list of lists"], [0, 1, 0, 1]
        >>> model = make_pipeline(plm.SplineCode("tiny-gpt2", layers=[2], pool="mean"), LogisticRegression())
        >>> model.fit(texts, label).predict(["The loop begins"])
        array([0])

    """

    def __init__(
        self,
        model: str | Model,
        *,
        layers: Sequence[int] | int | str = "all",
        kind: str | None = None,
        pool: Pool = "last",
        bos: bool | None = None,
    ) -> None:
        self.model = model
        self.layers = layers
        self.kind = kind
        self.pool = pool
        self.bos = bos

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002 - scikit-learn's signature
        """Check texts and settings.

        Raises:
            PolytopeError: no texts, an unknown model, layer, kind or pool.

        """
        if self.pool not in get_args(Pool):
            raise PolytopeError(f"pool = {brief(self.pool)}: choose among {', '.join(get_args(Pool))}")
        _texts(X)
        self.sites_ = select_sites(self._model(), self.layers, self.kind)
        return self

    def transform(self, X: Any) -> Float[np.ndarray, "n F"]:
        """Return one row of features a text, as float32.

        Args:
            X: a list, array or Series of texts, or what else `plm.encode` reads.

        Raises:
            PolytopeError: a text that is empty or none.

        """
        check_is_fitted(self)
        codes = encode(self._model(), _texts(X), layers=self.layers, kind=self.kind, keep=(), bos=self.bos)
        documents = codes.tokens["document"].to_numpy()
        first = np.flatnonzero(np.diff(documents, prepend=-1))
        last = np.append(first[1:], len(documents)) - 1
        blocks = []
        for site in self.sites_:
            bits = codes.bits(site.layer, site.name)
            if self.pool == "last":
                blocks.append(bits[last].astype(np.float32))
            else:
                sums = np.add.reduceat(bits, first, axis=0, dtype=np.float32)
                blocks.append(sums / (last - first + 1)[:, None].astype(np.float32))
        return np.concatenate(blocks, axis=1)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:  # noqa: ARG002 - scikit-learn's
        """Return the neurons' names, such as `L02.pre.17`."""
        check_is_fitted(self)
        return np.array([f"{site.key}.{i}" for site in self.sites_ for i in range(site.width)], dtype=object)

    def _model(self) -> Model:
        return _loaded(self.model) if isinstance(self.model, str) else self.model

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "sites_")

    def __sklearn_tags__(self) -> Any:
        """Say that texts are read: scikit-learn's own checks of numbers then don't apply."""
        tags = super().__sklearn_tags__()
        tags.input_tags.string, tags.input_tags.two_d_array, tags.input_tags.one_d_array = True, False, True
        tags.transformer_tags.preserves_dtype = []
        return tags


@lru_cache(maxsize=2)
def _loaded(name: str) -> Model:
    """Load a model once for all clones of a cross-validation."""
    return load(name)


def _texts(X: Any) -> Any:
    """Return texts for `encode`, those of an array as a list."""
    texts = X.tolist() if isinstance(X, np.ndarray) else X
    if isinstance(texts, str) or not given(texts):
        raise PolytopeError(f"X = {brief(X)}: give a list of texts, at least one")
    return texts
