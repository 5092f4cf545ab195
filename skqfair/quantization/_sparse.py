"""Weights with many zeros, as they would be stored: the non-zeros, and where they lie."""

from dataclasses import dataclass

import numpy as np
import torch

from skqfair.quantization._affine import MAX_BITS, MIN_BITS, pack, unpack
from skqfair.quantization._size import float_size
from skqfair.quantization._targets import check_module, quantizable_weights

__all__ = ["SparseTensor", "flat_values", "sparse_nbytes", "sparse_size"]

_VALUE = np.dtype("<f4")
_COUNT = np.dtype("<u4")


@dataclass(frozen=True, eq=False)
class SparseTensor:
    r"""Numbers packed into the fewest bytes of three layouts.

    For n numbers of which k are not zero, with 4 bytes for each that is stored:

    - "dense": all n of them;
    - "bitmap": one bit for each number, and the k non-zeros, :math:`\lceil n / 8 \rceil + 4 k`;
    - "gaps": the zeros before each non-zero, in b bits, and the non-zeros. A code of b ones stands for
      :math:`2^b - 1` zeros that no non-zero follows; k itself takes 4 bytes. With gaps g these are
      :math:`4 + \lceil b \sum (1 + \lfloor g / (2^b - 1) \rfloor) / 8 \rceil + 4 k`, for the best b
      in 2..16.

    Shape, layout and b are known beside the bytes, as shape and bits of a
    :class:`QuantizedTensor` are.

    Parameters
    ----------
    data : ndarray of uint8
        The bytes.
    layout : {"dense", "bitmap", "gaps"}
        How they are laid out.
    shape : tuple of int
        Shape of the tensor.
    gap_bits : int or None
        Bits of each gap, for "gaps".

    References
    ----------
    Han, S., Mao, H. & Dally, W. J. (2016). Deep compression. ICLR.

    Examples
    --------
    >>> import numpy as np
    >>> from skqfair.quantization import SparseTensor
    >>> values = np.zeros(800)
    >>> values[::20] = 1.5
    >>> packed = SparseTensor.from_dense(values)  # 40 gaps of 5 bits, and 40 numbers
    >>> packed.layout, packed.gap_bits, packed.nbytes
    ('gaps', 5, 189)
    >>> bool((packed.unpack() == values).all())
    True
    """

    data: np.ndarray
    layout: str
    shape: tuple
    gap_bits: int | None = None

    @classmethod
    def from_dense(cls, tensor: torch.Tensor | np.ndarray) -> "SparseTensor":
        """Pack a tensor, as float32."""
        values, shape = flat_values(tensor), tuple(np.shape(tensor))
        kept = _positions(values)
        (layout, bits), _ = _smallest(len(values), kept)
        if layout == "dense":
            return cls(values.view(np.uint8), layout, shape)
        if layout == "bitmap":
            where = np.packbits(_is_stored(values), bitorder="little")
        else:
            top = 1 << (bits - 1)
            signed = (_gap_codes(kept, bits).astype(np.int64) ^ top) - top  # the same bits
            where = np.concatenate([np.array([len(kept)], _COUNT).view(np.uint8), pack(signed, bits)])
        return cls(np.concatenate([where, values[kept].view(np.uint8)]), layout, shape, bits)

    def unpack(self) -> np.ndarray:
        """Return the tensor, bit for bit.

        Returns
        -------
        ndarray of float32
            The numbers that were packed.
        """
        count = int(np.prod(self.shape, dtype=np.int64))
        if self.layout == "dense":
            return self.data.view(_VALUE).reshape(self.shape).copy()
        if self.layout == "bitmap":
            end = -(-count // 8)
            kept = np.flatnonzero(np.unpackbits(self.data[:end], count=count, bitorder="little"))
        else:
            n_kept = int(self.data[:4].copy().view(_COUNT)[0])
            end = len(self.data) - _VALUE.itemsize * n_kept
            kept = _from_gap_codes(self.data[4:end], self.gap_bits, n_kept)
        values = np.zeros(count, _VALUE)
        values[kept] = self.data[end:].copy().view(_VALUE)
        return values.reshape(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the data."""
        return len(self.data)


def flat_values(tensor):
    """Return the numbers of a tensor or array in a flat array of float32."""
    if isinstance(tensor, torch.Tensor):
        tensor = tensor.detach().cpu()
        tensor = (tensor.real if tensor.is_complex() else tensor).float().numpy()
    if np.asarray(tensor).dtype.kind not in "fiub":
        raise ValueError(f"tensor must hold real numbers; got {type(tensor).__name__}.")
    return np.ascontiguousarray(tensor, dtype=_VALUE).reshape(-1)


def sparse_nbytes(tensor):
    """Return the bytes that :class:`SparseTensor` takes, without packing."""
    values = flat_values(tensor)
    return _smallest(len(values), _positions(values))[1]


def sparse_size(module: torch.nn.Module) -> int:
    """Return the bytes of a module whose weights are stored as :class:`SparseTensor`.

    Parameters
    ----------
    module : torch.nn.Module
        Any module. What :func:`quantizable_weights` names is packed; everything else that prediction
        needs takes 4 bytes for each number, as in :func:`float_size`.

    Returns
    -------
    int
        Bytes.

    Examples
    --------
    >>> import torch
    >>> from skqfair.quantization import float_size, prune, sparse_size
    >>> module = prune(torch.nn.Linear(100, 10), 0.9).module
    >>> float_size(module), sparse_size(module) <= 125 + 4 * 100 + 4 * 10
    (4040, True)
    """
    check_module(module)
    parameters = dict(module.named_parameters())
    weights = [parameters[name] for name in quantizable_weights(module)]
    left_in_float = float_size(module) - _VALUE.itemsize * sum(weight.numel() for weight in weights)
    return left_in_float + sum(sparse_nbytes(weight) for weight in weights)


def _is_stored(values):
    """Tell where there is more than a positive zero: a negative one has a bit set."""
    return values.view("<u4") != 0


def _positions(values):
    return np.flatnonzero(_is_stored(values))


def _smallest(count, kept):
    """Return the layout of the fewest bytes as (name, bits of gaps or None), and these bytes."""
    stored = _VALUE.itemsize * len(kept)
    sizes = {("dense", None): _VALUE.itemsize * count, ("bitmap", None): -(-count // 8) + stored}
    gaps = _gaps(kept)
    for bits in range(MIN_BITS, MAX_BITS + 1):
        n_codes = len(gaps) + int((gaps // (2**bits - 1)).sum())
        sizes["gaps", bits] = _COUNT.itemsize + -(-n_codes * bits // 8) + stored
    layout = min(sizes, key=sizes.get)
    return layout, sizes[layout]


def _gaps(kept):
    """Return the zeros right before each of these positions."""
    return np.diff(kept, prepend=-1) - 1


def _gap_codes(kept, bits):
    """Return the gaps as codes below 2^bits."""
    ones = 2**bits - 1
    passed, rest = np.divmod(_gaps(kept), ones)
    ends = np.cumsum(passed + 1) - 1
    codes = np.full(len(kept) + int(passed.sum()), ones)
    codes[ends] = rest
    return codes


def _from_gap_codes(stream, bits, n_kept):
    """Return the positions; the last byte may hold bits beyond the codes."""
    ones = 2**bits - 1
    codes = unpack(stream, bits, (len(stream) * 8 // bits,)).astype(np.int64) & ones
    ends = np.flatnonzero(codes != ones)[:n_kept]
    return np.cumsum(codes)[ends] + np.arange(n_kept)
