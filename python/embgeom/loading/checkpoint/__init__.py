"""The tensors of a model: which files hold them, and which of them is the matrix.

The files, each of which uses only those above it:

    torch_file.py     one tensor of a PyTorch file
    checkpoint.py     one file, or shards with an index; the table of a model2vec model
    choice.py         which tensor is asked for, by `architectures`, names and shapes
"""
