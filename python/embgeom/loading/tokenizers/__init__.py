"""Tokenizers: from files or an object to what each token is written as and spells.

The files:

    given.py                what a user passes as vocabulary= or tokenizer=
    reading.py              which of a model's files describes its tokens
    table.py                `TokenTable`, and tokenizer.json, which most models have
    vocabulary_files.py     vocab.json, vocab.txt and their like: GPT-2, BERT, fastBPE, PhoBERT, Marian, ...
    rank_tables.py          tiktoken and tekken
    sentencepiece_file.py   SentencePiece models
    settings.py             tokenizer_config.json and its neighbors: special and added tokens
    object.py               a tokenizer of transformers or tokenizers in memory
"""
