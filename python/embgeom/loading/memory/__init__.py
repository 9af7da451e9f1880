"""Models, layers, tensors, frames and word vectors in memory; their libraries are not imported.

The files:

    objects.py    load_object(): what kind of object it is -> Embeddings
    modules.py    the matrix of a layer, with adapters merged and quantized weights named; the final norm
"""
