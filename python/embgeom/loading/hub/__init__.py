"""Repositories on the Hugging Face Hub, of which the header of a file and the tensors asked for are fetched.

The files:

    repository.py     a repository as a source of files, as `folder.Folder` is
    file.py           a safetensors file on the Hub, used like one on this machine
    ranges.py         requests for a range of bytes, repeated where that helps
    answers.py        what a server answers: redirects, ranges, sizes, waits
    errors.py         what failures mean, in one line
    partial_file.py   a file that continues where an earlier run broke off
    tensor_cache.py   where fetched tensors are kept
"""
