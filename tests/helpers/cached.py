"""What tests of the cache of results share."""

from embgeom._common.record import plain


def computed(cached, function, *arguments, **options):
    """Return a result, and whether it was computed."""
    before = len(cached.served)
    return cached(function, *arguments, **options), len(cached.served) == before


def same(one, other):
    a, b = {}, {}
    assert type(one) is type(other) and plain(one, a) == plain(other, b) and a.keys() == b.keys()
    for name, array in a.items():
        assert (array.dtype, array.shape) == (b[name].dtype, b[name].shape)
        assert array.tobytes() == b[name].tobytes() and array.flags.c_contiguous, name
