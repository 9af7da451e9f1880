"""From a checkpoint to an `Embeddings`.

The files, in the order of the flow:

    model.py           load(): the steps below in order
    source.py          whose files: a path, a bundled example, a repository; which folder within it
    folder.py hub/     the model's files, in a folder here or in a Hugging Face repository
    config.py          what config.json says: family, vocabulary, sizes, depth, ties
    architectures.py   what is known of families of models: names, ties, norms, layers; add a model here
    tokenizers/        the tokenizer's files, or what the user passes -> a table of tokens
    checkpoint/        which files hold the tensors, and which tensor is the matrix
    adapter.py         what a PEFT adapter makes of the tensor
    final_norm.py      load_final_norm(): the norm before the unembedding
    assemble.py        what is asked for; a matrix and its table of tokens -> Embeddings, if they fit

Other forms of a model, each with steps of its own:

    gguf/              a file of llama.cpp
    matrix_files/      NumPy's arrays and word vectors
    memory/            models, tensors, frames and word vectors in memory

What all of them read with:

    folder.py            a file that is opened once, JSON and text
    safetensors_file.py  one tensor of a safetensors file
    convert.py           any stored floating-point type -> float32

Imports run one way: from these through hub, source, config, tokenizers and checkpoint to the other forms,
and to model in the end.
"""

from embgeom.loading.model import load

__all__ = ["load"]
