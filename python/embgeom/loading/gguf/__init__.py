"""GGUF models: one tensor of the file, its tokens, and what its header says.

The files:

    model.py     load_gguf(): the steps in order
    file.py      the keys, and one tensor, mapped or dequantized by the package gguf in pieces
    tokens.py    tokenizer.ggml.* -> what each token is written as and spells
"""
