"""`Emb2Emb`: a map from one model's residual stream to another's, fitted on the tokens that they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import Float64Matrix, Float64Vector
from embgeom.emb2emb import fitting
from embgeom.emb2emb.neighbors import NeighborMap
from embgeom.emb2emb.score import Scores
from embgeom.emb2emb.solve import Method, dual
from embgeom.emb2emb.transfer import TransferMode
from embgeom.errors import InputError

if TYPE_CHECKING:
    from embgeom.steering import SteeringVector


@dataclass(frozen=True, eq=False, repr=False)
class Emb2Emb:
    """A map from the vectors of a source model to those of a target model of other width.

    Made by `fit` or `load`. It is fitted on rows of the two models' embedding or unembedding matrices,
    weights alone: row u of a shared token in the source goes to ``(u - source_mean) A + target_mean``,
    about its row in the target.

    Attributes
    ----------
    method : str
        How A was found.
    matrix : ndarray of float64, shape (d_s, d_t), or None
        A; None for ``method="lle"``, which is not linear.
    logits_matrix : ndarray of float64, shape (d_s, d_t)
        L of the mode "logits".
    neighbors : NeighborMap or None
        The shared rows, for ``method="lle"``.
    source_mean, target_mean : ndarray of float64, shapes (d_s,) and (d_t,)
        What is subtracted and added; zero without ``center``.
    scores, shuffled : Scores or None
        On held-out tokens, of this map and of one that was fitted the same way on shuffled pairs.
    provenance : dict
        Both models with the hashes of their files, the tokens used, options, and facts of the fit.

    Examples
    --------
    >>> import numpy as np
    >>> import embgeom
    >>> rng = np.random.default_rng(0)
    >>> source = rng.standard_normal((300, 8))
    >>> target = source @ rng.standard_normal((8, 12))
    >>> mapping = embgeom.Emb2Emb.fit(source, target, method="least_squares")
    >>> round(mapping.scores.r2, 6), round(mapping.scores.retrieval_at_1, 6), mapping.shuffled.r2 < 0.1
    (1.0, 1.0, True)
    >>> mapping.transfer(source[0]).shape
    (12,)
    """

    method: Method
    matrix: Float64Matrix | None
    logits_matrix: Float64Matrix
    neighbors: NeighborMap | None
    source_mean: Float64Vector
    target_mean: Float64Vector
    scores: Scores | None = None
    shuffled: Scores | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    fit = staticmethod(fitting.fit)

    @property
    def widths(self) -> tuple[int, int]:
        """d_s and d_t."""
        return len(self.source_mean), len(self.target_mean)

    @cached_property
    def dual_matrix(self) -> Float64Matrix:
        """The pseudo-inverse of A, transposed: (d_s, d_t).

        Raises
        ------
        InputError
            For ``method="lle"``.
        """
        if self.matrix is None:
            raise InputError(
                "mode 'dual' needs a linear map, and method 'lle' gives none; use 'primal', "
                "'logits', or another method"
            )
        return dual(self.matrix)

    def predict(self, rows: npt.ArrayLike, *, threads: int | None = None) -> Float64Matrix:
        """Predict the target rows of tokens from their source rows; the means count.

        Parameters
        ----------
        rows : array_like, shape (d_s,) or (m, d_s)
            Rows of the source, as the map was fitted on them: with the norm folded in, of length 1, where
            the fit did so.
        threads : int, optional
            Threads for ``method="lle"``; every core available to the process by default.

        Returns
        -------
        ndarray of float64, shape (d_t,) or (m, d_t)
            One for each row.

        Raises
        ------
        InputError
            If the width does not fit, or a value is NaN or infinite.
        """
        from embgeom.emb2emb.transfer import predict_rows

        return predict_rows(self, rows, threads)

    @overload
    def transfer(
        self,
        vectors: SteeringVector,
        *,
        mode: TransferMode | None = ...,
        layers: Mapping[int, int] | int | None = ...,
        norm: float | SteeringVector | None = ...,
        threads: int | None = ...,
    ) -> SteeringVector: ...

    @overload
    def transfer(
        self,
        vectors: npt.NDArray[Any] | Sequence[Any],
        *,
        mode: TransferMode | None = ...,
        norm: float | None = ...,
        threads: int | None = ...,
    ) -> npt.NDArray[np.float32]: ...

    def transfer(
        self,
        vectors: SteeringVector | npt.NDArray[Any] | Sequence[Any],
        *,
        mode: TransferMode | None = None,
        layers: Mapping[int, int] | int | None = None,
        norm: float | SteeringVector | None = None,
        threads: int | None = None,
    ) -> SteeringVector | npt.NDArray[np.float32]:
        """Transfer directions of the source's residual stream to the target's.

        Parameters
        ----------
        vectors : SteeringVector, or array_like of shape (d_s,) or (m, d_s)
            One direction or a stack of them; the means do not count, since directions are differences.
        mode : {"primal", "dual", "logits"}, optional
            "dual" by default, "primal" for a map that is not linear. "primal" takes v A, as published,
            which treats v as an embedding. "dual" takes the pseudo-inverse of A, transposed, which keeps
            logits where A fits exactly and loses no direction of v, as a target that is narrower does.
            "logits" asks for the direction h of the target whose logits U_t h for the shared tokens are
            nearest to the source's U_s v, by ridge regression: the same aim, without inverting A, and the
            same for every method of `fit`.
        layers : int or mapping of int to int, optional
            For a `SteeringVector`: the layer of the target for the source's only layer, or for each of its
            layers. By default the same ones; between models that are known to differ in depth, those at the
            same `embgeom.matching_layer`, and of several that go to one layer the nearest to it.
        norm : float or SteeringVector, optional
            The norm that results are scaled to; or a target's vector, whose norms are taken layer by layer.
        threads : int, optional
            Threads for ``method="lle"``; every core available to the process by default.

        Returns
        -------
        SteeringVector, or ndarray of float32 of shape (d_t,) or (m, d_t)
            As `vectors` was given.

        Raises
        ------
        InputError
            If a width, a mode or a layer does not fit, or a result to be scaled is zero.

        Warns
        -----
        EmbgeomWarning
            If a steering vector is, by the names kept with both, another model's than the map's source.
        """
        from embgeom.emb2emb.transfer import transfer_array
        from embgeom.emb2emb.vectors import transfer_vector
        from embgeom.steering import SteeringVector

        if isinstance(vectors, SteeringVector):
            return transfer_vector(self, vectors, mode, layers, norm, threads)
        if layers is not None or isinstance(norm, SteeringVector):
            raise InputError("layers= and the norms of a vector are for a SteeringVector, not for an array")
        return transfer_array(self, vectors, mode, norm, threads)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the map to a safetensors file, whole or not at all.

        Raises
        ------
        OutputError
            If the file cannot be written, or its name does not end in ``.safetensors``.
        InputError
            If the provenance was changed to what is not ready for JSON.
        """
        from embgeom.emb2emb.saving import save

        save(self, path)

    @staticmethod
    def load(path: str | PathLike[str]) -> Emb2Emb:
        """Read a map that `save` wrote.

        Raises
        ------
        LoadError
            If the file cannot be read, is no map, or its parts do not fit each other.
        """
        from embgeom.emb2emb.reading import load

        return load(path)

    def summary(self) -> str:
        """Return a few lines: what was fitted on what, and the scores beside those of shuffled pairs."""
        both = (("held out", self.scores), ("shuffled pairs", self.shuffled))
        return "\n".join([repr(self), *(f"  {name}: {s.line()}" for name, s in both if s is not None)])

    def __repr__(self) -> str:
        names = self.provenance.get("names", ["source", "target"])
        widths = " -> ".join(map(str, self.widths))
        return f"Emb2Emb({names[0]!r} -> {names[1]!r}, {self.method}, {widths})"
