"""Repositories on the Hugging Face Hub, of which the header of a file and the tensors asked for are fetched.

The files:

    repository.py   a repository as a source of files, as `folder.Folder` is
    tensors.py      a safetensors file on the Hub, used like one on this machine
    ranges.py       requests for a range of bytes, repeated where that helps
    cache.py        where what is fetched is kept, and files that continue where an earlier run broke off
"""
