"""Files that hold one matrix and nothing else of a model: NumPy arrays and word vectors."""
