"""Files that hold one matrix and nothing else of a model.

The files:

    load.py            load_array(), load_words(): the steps in order
    array_file.py      .npy and .npz
    word_vectors.py    word2vec's .txt and .bin, GloVe's .txt, fastText's .vec; packed_file.py: also in gzip
    keyed_vectors.py   gensim's .kv
"""
