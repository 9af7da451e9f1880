"""Arrays in, arrays out: neighbors, LLE, intrinsic dimension, similarity, agreement between models."""
