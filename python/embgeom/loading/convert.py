"""Convert stored numbers to float32 in chunks, so that no second copy of the tensor is ever held."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from embgeom._common.arrays import refuse_lost_rows
from embgeom._common.progress import byte_bar
from embgeom.errors import InputError, LoadError

# How each stored type is read from the file; NumPy has no bfloat16, so its bits are read.
READ_AS: dict[str, np.dtype[np.generic]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
}
_CHUNK_BYTES = 1 << 24


def check_dtype(stored: str, tensor: str) -> None:
    if stored not in READ_AS:
        raise LoadError(
            f"{tensor} is stored as {stored}, which embgeom does not read (it reads {', '.join(READ_AS)}); "
            "a quantized model has to be dequantized first, or take the original checkpoint"
        )


def check_matrix(shape: tuple[int, ...], where: str) -> None:
    if len(shape) != 2 or 0 in shape:
        raise LoadError(f"{where} has shape {list(shape)}; it must be (tokens, hidden_size) and not empty")


def to_float32(
    raw: npt.NDArray[np.generic], stored: str, tensor: str, *, progress: bool = False
) -> npt.NDArray[np.float32]:
    if raw.dtype == np.float32 and raw.flags.c_contiguous and raw.flags.aligned:
        return raw.view(np.float32)
    if raw.ndim == 0:
        return to_float32(raw.reshape(1), stored, tensor).reshape(())
    result = np.empty(raw.shape, dtype=np.float32)
    step = max(1, _CHUNK_BYTES // max(1, raw[:1].nbytes))
    with byte_bar(f"converting {tensor}", raw.nbytes, progress) as bar:
        for start in range(0, len(raw), step):
            chunk, out = raw[start : start + step], result[start : start + step]
            if stored == "BF16":
                # A bfloat16 is the upper half of the float32 of the same value.
                np.left_shift(chunk, 16, out=out.view(np.uint32), dtype=np.uint32)
            else:
                with np.errstate(over="ignore", under="ignore"):
                    out[...] = chunk
            bar.update(chunk.nbytes)
    if stored == "F64" and raw.size:
        shape = (1, -1) if raw.ndim == 1 else (len(raw), -1)
        try:
            refuse_lost_rows(raw.reshape(shape), result.reshape(shape), tensor)
        except InputError as error:
            raise LoadError(str(error)) from error
    return result
