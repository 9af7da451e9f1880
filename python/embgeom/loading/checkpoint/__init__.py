"""The tensors of a model: which files hold them, and which of them is the matrix.

The files:

    checkpoint.py          one file, or shards with an index
    torch_file.py          one tensor of a PyTorch file
    tensor_names.py        which tensor is asked for, by `architectures`
    name_matching.py       tensors by name, whatever stands before and behind it
    stored_parts.py        matrices that are quantized, adapted or in parts, which are refused by name
    model2vec.py           the table of a model2vec model, one row for each token
"""
