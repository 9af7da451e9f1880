"""The tensors of a model: which files hold them, and which of them is the matrix."""
