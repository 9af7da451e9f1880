"""GGUF models: the file and its keys, its tokens, and which of its tensors is which."""
