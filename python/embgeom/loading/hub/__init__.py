"""Repositories on the Hugging Face Hub: of a file, the header and the tensors asked for are fetched."""
