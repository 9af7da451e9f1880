"""Tokenizers: from files or an object to what each token is written as and spells.

The files, each of which uses only those above it:

    table.py                `TokenTable`, and tokenizer.json, which most models have
    classes.py              what is known of the tokenizer classes of transformers; add a class here
    settings.py             tokenizer_config.json and its neighbors: the class, special and added tokens
    vocabulary_files.py     vocab.json, vocab.txt and their like: GPT-2, BERT, fastBPE, PhoBERT, Marian, ...
    rank_tables.py          tiktoken and tekken
    sentencepiece_file.py   SentencePiece models
    reading.py              which of a model's files describes its tokens
    given.py                what a user passes as vocabulary= or tokenizer=
"""
