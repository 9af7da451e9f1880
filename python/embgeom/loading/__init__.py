"""From a checkpoint to an `Embeddings`.

The files, in the order of the flow:

    model.py             load(): the steps below in order
    source.py            whose files: a path, a bundled example, a repository; which folder within it
    folder.py, hub/      files on this machine, as float32; and in a repository of the Hugging Face Hub
    config.py            what config.json says: family, vocabulary, hidden size, depth, ties
    architectures.py     what is known of families of models: names, ties, norms, layers; add a model here
    tokenizers/          the tokenizer's files, or what the user passes -> a table of tokens
    checkpoint/          which files hold the tensors, and which tensor is the matrix
    safetensors_file.py  the tensors of a safetensors file, here or on the Hub
    adapter.py           what a PEFT adapter makes of the tensor
    assemble.py          what is asked for; a matrix and its table of tokens -> Embeddings, if they fit
    final_norm.py        load_final_norm(): the norm before the unembedding
    unreachable.py       which tokens the tokenizer never produces

Other forms of a model, each with steps of its own:

    gguf/                a file of llama.cpp
    matrix_files/        NumPy's arrays and word vectors
    memory.py            models, tensors, frames and word vectors in memory
"""

from embgeom.loading.model import load

__all__ = ["load"]
