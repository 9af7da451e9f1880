"""From a checkpoint to an `Embeddings`.

The files, in the order of the flow:

    model.py            load(): the steps below in order
    source.py           whose files: a path, a bundled example, a repository
    folder.py hub.py    where the model's files are: a folder, a Hugging Face repository
    hub_file.py         a file on the Hub, of which the header and the tensors asked for are fetched
    ranges.py answers.py hub_errors.py    requests for bytes, what is answered, what failures mean
    tensor_cache.py partial_file.py       where fetched tensors are kept; files that continue after a break
    architectures.py    what is known of families of models: names, ties, norms, layers; add a model here
    config.py           what config.json says: family, vocabulary, width, depth, ties
    tokens.py           the tokenizer's files -> what each token is written as and spells
    checkpoint.py       which files hold the tensors: one, or shards with an index
    tensor_names.py     which tensor is asked for
    name_matching.py stored_parts.py    tensors by name; matrices that are quantised or in parts
    local_file.py       a file that is opened once
    safetensors_file.py torch_file.py array_file.py    one tensor of one file
    adapter.py          what a PEFT adapter makes of the tensor; adapter_names.py: what its tensors are called
    memory.py           models, tensors, frames and word vectors in memory, instead of files
    tokenizer_object.py modules.py norm_module.py    a tokenizer, a layer, a norm in memory
    convert.py          any stored floating-point type -> float32
    final_norm.py       the weight of the norm before the unembedding
    assemble.py         a matrix and its tokens -> Embeddings, if they fit each other
"""

from embgeom.loading.model import load

__all__ = ["load"]
