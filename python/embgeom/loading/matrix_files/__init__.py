"""Files that hold one matrix and nothing else of a model.

The files:

    array_file.py      .npy and .npz
    word_vectors.py    word2vec's .txt and .bin, GloVe's .txt, fastText's .vec, each also in gzip
    keyed_vectors.py   gensim's .kv
"""
