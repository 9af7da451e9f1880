"""GGUF models: one tensor of the file, its tokens, and what its header says.

The files:

    model.py     load_gguf(): the steps in order
    file.py      one tensor, by memory map or dequantised by the package gguf in pieces
    header.py    the keys and tensors; cursor.py: the numbers and strings they are written in
    tokens.py    tokenizer.ggml.* -> what each token is written as and spells
"""
