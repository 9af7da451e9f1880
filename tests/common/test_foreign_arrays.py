"""Tensors, frames, word vectors and the package's own results wherever an array is taken."""

from __future__ import annotations

import numpy as np
import pytest

import embgeom
from embgeom.errors import InputError

X = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
NEAREST = embgeom.knn(X, 3)
NAMES = [f"t{i}" for i in range(40)]


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed")


TENSORS = {
    "a Parameter": lambda torch: torch.nn.Parameter(torch.tensor(X)),
    "float64": lambda torch: torch.tensor(X).double().requires_grad_(),
    "columns first": lambda torch: torch.tensor(X.T.copy()).T,
    "lazily negated": lambda torch: torch._neg_view(torch.tensor(-X)),
    "the real part of a conjugate": lambda torch: torch.complex(torch.tensor(X), torch.tensor(X)).conj().real,
    "a list of rows": lambda torch: list(torch.nn.Parameter(torch.tensor(X))),
    "part of a larger one": lambda torch: torch.nn.functional.pad(torch.tensor(X), (3, 2))[:, 3:11],
}


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_hold_the_same_numbers(torch, kind):
    x = TENSORS[kind](torch)
    assert np.array_equal(embgeom.knn(x, 3).indices, NEAREST.indices)
    assert np.array_equal(embgeom.row_stats(x).norms, embgeom.row_stats(X).norms)
    assert np.array_equal(embgeom.Embeddings.from_array(x, NAMES).matrix, X)


@pytest.mark.parametrize("kind", ["bfloat16", "float16", "float8_e4m3fn", "float8_e5m2"])
def test_small_types_become_float32_exactly(torch, kind):
    x = torch.nn.Parameter(torch.tensor(X).to(getattr(torch, kind)), requires_grad=kind != "float8_e5m2")
    made = embgeom.Embeddings.from_array(x, NAMES)
    assert np.array_equal(made.matrix, x.detach().float().numpy()) and made.provenance.dtype == kind
    assert embgeom.load(x, vocabulary=NAMES).provenance.dtype == kind


def test_float32_is_used_without_a_copy(torch):
    x = torch.nn.Parameter(torch.tensor(X))
    assert embgeom.Embeddings.from_array(x, NAMES).matrix.ctypes.data == x.data_ptr()


def test_float64_that_overflows_is_named(torch):
    x = torch.tensor(X).double()
    x[7, 2] = 1e300
    with pytest.raises(InputError, match="row 7, column 2 is 1e"):
        embgeom.knn(x, 3)


def test_index_arguments_take_integer_tensors(torch):
    x, indices = torch.nn.Parameter(torch.tensor(X)), torch.tensor(NEAREST.indices)
    some = torch.tensor([3, 5])
    assert np.array_equal(embgeom.knn(x, 3, rows=some).indices, NEAREST.indices[[3, 5]])
    assert np.array_equal(embgeom.knn(x, 3, queries=x[:2]).indices[:, 1:], NEAREST.indices[:2, :2])
    plain, weights = embgeom.lle(X, NEAREST), embgeom.lle(x, indices)
    assert np.array_equal(weights.weights, plain.weights)
    assert embgeom.neighbor_overlap(indices, NEAREST).tolist() == [1.0] * 40
    cosines = embgeom.weight_cosine(indices, torch.tensor(plain.weights), NEAREST, plain)
    assert np.allclose(cosines, 1.0)
    dimension = embgeom.intrinsic_dimension(x, indices, rows=torch.arange(40))
    assert np.array_equal(dimension.n_components, embgeom.intrinsic_dimension(X, NEAREST).n_components)
    with pytest.raises(InputError, match="rows must hold integers, not float32"):
        embgeom.knn(x, 3, rows=some.float())


def test_maps_norms_and_vectors_take_tensors(torch):
    x = torch.nn.Parameter(torch.tensor(X))
    fitted = embgeom.Emb2Emb.fit(x, x, weights=torch.ones(40), seed=0)
    plain = embgeom.Emb2Emb.fit(X, X, weights=np.ones(40), seed=0)
    assert np.array_equal(fitted.predict(x), plain.predict(X))
    assert np.array_equal(fitted.transfer(x[0]), plain.transfer(X[0]))
    assert np.array_equal(embgeom.FinalNorm.from_weights(x[0], "rms_norm").weight, X[0])
    vector = embgeom.SteeringVector({1: x[0], 2: x[1].bfloat16().float()})
    assert np.array_equal(vector.directions[1], X[0])
    assert embgeom.global_similarity(x, x.detach()) == pytest.approx(1.0)
    with pytest.raises(InputError, match=r"the direction of layer 1 is on the device 'meta'"):
        embgeom.SteeringVector({1: torch.ones(8, device="meta")})


WITHOUT_NUMBERS = {
    "sparse": (lambda torch: torch.tensor(X).to_sparse(), "to_dense"),
    "meta": (lambda torch: torch.tensor(X).to("meta"), "holds no numbers"),
    "complex": (lambda torch: torch.tensor(X).to(torch.complex64), "real numbers, not complex64"),
    "packed": (lambda torch: torch.zeros(4, 2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2), "not float4"),
    "module": (lambda torch: torch.nn.Linear(8, 8), "the module Linear: pass its weight"),
    "no data": (lambda torch: torch._subclasses.FakeTensorMode().from_tensor(torch.ones(4, 2)), "is not a"),
    "name": (lambda torch: "example:small", r"name 'example:small': embgeom\.load"),
    "table": (lambda torch: {"a": X}, "and dict is not an array.*embgeom takes NumPy arrays, torch tensors"),
    "result": (lambda torch: NEAREST, "Neighbors is not an array"),
    "masked": (lambda torch: np.ma.masked_less(X, 0), "masked array"),
}  # fmt: skip


@pytest.mark.parametrize("kind", WITHOUT_NUMBERS)
def test_what_has_no_numbers_says_what_to_pass(torch, kind):
    make, why = WITHOUT_NUMBERS[kind]
    for call in (lambda x: embgeom.knn(x, 1), lambda x: embgeom.global_similarity(x, X), embgeom.row_stats):
        with pytest.raises(InputError, match=why) as told:
            call(make(torch))
        assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("package", "kind"), [("bitsandbytes.nn", "Params4bit"), ("torchao.quantization", "Int8Tensor")]
)
def test_quantized_tensors_are_named(torch, package, kind):
    quantized = type(kind, (torch.nn.Parameter,), {"__module__": package})(torch.zeros(4, 2), False)
    with pytest.raises(InputError, match=f"quantized .{package.split('.')[0]}'s {kind}.*dequantize"):
        embgeom.knn(quantized, 1)


def test_polars_frames():
    polars = pytest.importorskip("polars", reason="polars is not installed")
    frame = polars.DataFrame(X)
    assert np.array_equal(embgeom.knn(frame, 3).indices, NEAREST.indices)
    with pytest.raises(InputError, match="columns that hold no numbers: word"):
        embgeom.knn(frame.with_columns(polars.Series("word", NAMES)), 3)
    with pytest.raises(InputError, match="lazy frame"):
        embgeom.knn(frame.lazy(), 3)
    with pytest.raises(InputError, match="row 1"):
        embgeom.knn(polars.DataFrame({"a": [1.0, None, 3.0], "b": [1.0, 2.0, 4.0]}), 1)


def test_pandas_frames():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(X, index=NAMES)
    for same in (frame, frame.astype("Float32"), frame.astype("float64")):
        assert np.array_equal(embgeom.knn(same, 3).indices, NEAREST.indices)
    with pytest.raises(InputError, match="columns that hold no numbers: word"):
        embgeom.knn(frame.assign(word="x"), 3)
    with pytest.raises(InputError, match="row 1"):
        embgeom.knn(pandas.DataFrame({"a": pandas.array([1.0, None, 3.0]), "b": [1.0, 2.0, 4.0]}), 1)


def test_word_vectors():
    models = pytest.importorskip("gensim.models", reason="gensim is not installed")
    vectors = models.KeyedVectors(8)
    vectors.add_vectors(NAMES, X)
    assert np.array_equal(embgeom.knn(vectors, 3).indices, NEAREST.indices)


def test_arrays_of_types_that_numpy_has_not():
    ml_dtypes = pytest.importorskip("ml_dtypes", reason="ml_dtypes is not installed")
    for kind in (ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        x = X.astype(kind)
        assert np.array_equal(embgeom.Embeddings.from_array(x, NAMES).matrix, x.astype(np.float32))


A = embgeom.Embeddings.from_array(X, NAMES, name="a")
B = embgeom.Embeddings.from_array(X, NAMES[::-1], name="b")


def test_functions_take_embeddings_without_a_copy():
    assert np.asarray(A) is A.matrix and np.array(A) is not A.matrix
    assert np.asarray(A, dtype=np.float64).dtype == np.float64
    neighbors = embgeom.knn(A, 3)
    assert np.array_equal(neighbors.indices, NEAREST.indices)
    assert np.array_equal(embgeom.lle(A, neighbors).weights, embgeom.lle(X, NEAREST).weights)
    wanted = embgeom.intrinsic_dimension(X, NEAREST).n_components
    assert np.array_equal(embgeom.intrinsic_dimension(A, neighbors).n_components, wanted)
    assert np.array_equal(embgeom.intrinsic_dimension(A, k=3).n_components, wanted)
    assert np.array_equal(embgeom.row_stats(A).norms, A.norms)
    assert embgeom.global_similarity(A, A) == pytest.approx(1.0)
    assert embgeom.global_similarity(A, X) == pytest.approx(1.0)


def test_functions_take_results():
    neighbors = embgeom.knn(A, 3)
    weights = embgeom.lle(A, neighbors)
    assert embgeom.neighbor_overlap(neighbors, neighbors).tolist() == [1.0] * 40
    for arguments in (
        (weights, weights),
        (neighbors, weights, neighbors, weights),
        (neighbors.indices, weights.weights, neighbors, weights),
    ):
        assert np.allclose(embgeom.weight_cosine(*arguments), 1.0)
    other = embgeom.lle(A, embgeom.knn(A, 3, metric="euclidean"))
    wanted = embgeom.weight_cosine(weights.indices, weights.weights, other.indices, other.weights)
    assert np.array_equal(embgeom.weight_cosine(weights, other), wanted) and wanted.min() < 0.9


@pytest.mark.parametrize(
    "call",
    [
        lambda: embgeom.global_similarity(A, B),
        lambda: embgeom.neighbor_overlap(embgeom.knn(A, 3), embgeom.knn(B, 3)),
        lambda: embgeom.lle(A, embgeom.knn(B, 3)),
        lambda: embgeom.intrinsic_dimension(A, embgeom.knn(B, 3)),
        lambda: embgeom.weight_cosine(embgeom.lle(X, embgeom.knn(A, 3)), embgeom.lle(B, embgeom.knn(B, 3))),
    ],
)
def test_rows_of_different_tokens_are_refused(call):
    with pytest.raises(InputError, match=r"row 0 is 't0' and 't39'.*embgeom\.match"):
        call()


def test_different_rows_are_refused():
    some, others = (embgeom.knn(X, 3, rows=rows) for rows in ([1, 2], [1, 3]))
    asked = embgeom.knn(X, 3, queries=X[:2])
    assert embgeom.neighbor_overlap(some, some).tolist() == [1.0, 1.0]
    assert embgeom.neighbor_overlap(asked, asked).tolist() == [1.0, 1.0]
    with pytest.raises(InputError, match="different rows"):
        embgeom.neighbor_overlap(some, others)
    with pytest.raises(InputError, match="different rows"):
        embgeom.weight_cosine(embgeom.lle(X, some), embgeom.lle(X, others))
    with pytest.raises(InputError, match="of queries"):
        embgeom.neighbor_overlap(some, asked)
    with pytest.raises(InputError, match=r"\(40, 3\) and \(2, 3\)"):
        embgeom.neighbor_overlap(NEAREST, some)
    weights = embgeom.lle(X, NEAREST)
    with pytest.raises(InputError, match="belong to other neighbors"):
        embgeom.weight_cosine(embgeom.knn(X, 3, metric="euclidean"), weights, NEAREST, weights)
    with pytest.raises(InputError, match="takes two LLE results"):
        embgeom.weight_cosine(NEAREST, NEAREST)


@pytest.mark.parametrize("package", ["pandas", "polars"])
@pytest.mark.parametrize("kind", ["int", "bool", "time"])
def test_a_column_that_is_no_dimension_is_refused_everywhere(package, kind):
    frames = pytest.importorskip(package, reason=f"{package} is not installed")
    whole = range(40)
    odd = {"int": whole, "bool": [True, False] * 20, "time": np.arange(40).astype("M8[ms]")}[kind]
    x = frames.DataFrame({**{f"d{i}": X[:, i] for i in range(8)}, "odd": odd})
    for call in (lambda: embgeom.knn(x, 3), lambda: embgeom.load(x, vocabulary=NAMES)):
        with pytest.raises(InputError, match="'odd' of the frame holds"):
            call()
    # Where every column is whole, each is a dimension.
    assert embgeom.knn(frames.DataFrame({"a": whole, "b": whole}), 3).k == 3


def test_columns_of_one_name_are_taken_once_each():
    frames = pytest.importorskip("pandas", reason="pandas is not installed")
    x = frames.concat([frames.DataFrame(X), frames.DataFrame(-X)], axis=1)
    assert np.array_equal(embgeom.load(x, vocabulary=NAMES).matrix, np.hstack([X, -X]))


@pytest.mark.parametrize(
    "tokens",
    [set(NAMES), {name: 39 - i for i, name in enumerate(NAMES)}, "".join(chr(65 + i) for i in range(40)), 5],
)
def test_tokens_without_an_order_of_rows_are_refused(tokens):
    with pytest.raises(InputError, match="must be a list of strings, not a"):
        embgeom.Embeddings.from_array(X, tokens)
    if isinstance(tokens, set | int):
        with pytest.raises(embgeom.LoadError, match="is not a list of strings"):
            embgeom.load(X, vocabulary=tokens)


def test_tokens_of_numpy_become_plain_strings():
    made = embgeom.Embeddings.from_array(X, np.array(NAMES))
    assert made.tokens == NAMES and {type(token) for token in made.tokens} == {str}


def test_an_error_is_one_line_whatever_it_names(torch):
    with pytest.raises(InputError) as caught:
        embgeom.load(X, None, torch.tensor(X), vocabulary=NAMES)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("indices", [[[1, -2]], [[1, 1 << 32]], [[1, 1]]])
def test_lists_that_hold_no_neighbors_have_no_overlap(indices):
    with pytest.raises(InputError, match=r"among the neighbors|names a row twice"):
        embgeom.neighbor_overlap(indices, [[1, 2]])


def test_rows_too_small_for_float32_are_named(tmp_path):
    x = X.astype(np.float64)
    x[7] *= 1e-60
    x[8, 0] = 1e-60
    for call in (lambda: embgeom.knn(x, 3), lambda: embgeom.global_similarity(x, X)):
        with pytest.raises(InputError, match="all of row 7 is too small for float32"):
            call()
    np.savez(tmp_path / "m.npz", matrix=x, tokens=NAMES)
    with pytest.raises(embgeom.LoadError, match="all of row 7"):
        embgeom.load(tmp_path / "m.npz")


@pytest.mark.parametrize("option", ["center", "include_diagonal"])
def test_what_is_neither_true_nor_false_is_refused(option):
    for value in ("no", np.array([True, False]), 2):
        with pytest.raises(InputError, match=f"{option} must be True or False"):
            embgeom.global_similarity(X, X, **{option: value})
