"""Tokenizers: from files or an object to what each token is written as and spells.

The files, each of which uses only those above it:

    table.py              `TokenTable`
    settings.py           tokenizer_config.json and its neighbors, and the known classes; add a class here
    vocabulary_files.py   vocab.json, vocab.txt, SentencePiece, tiktoken, tekken
    reading.py            which of a model's files describes its tokens, or what the user passes
"""
