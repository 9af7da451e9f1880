"""Models, layers, tensors, frames and word vectors in memory; their libraries are not imported."""
