"""What multiplies each weight: the inputs of a layer as rows of a matrix, and their moments."""

import math
from collections.abc import Iterable, Mapping
from copy import copy
from functools import partial
from itertools import repeat

import torch
from torch import nn
from torch.nn import functional as F

from skqfair._copies import deep_copy
from skqfair.quantization._affine import widened
from skqfair.quantization._passes import Passes, Watched
from skqfair.quantization._recurrent_inputs import cell_readers, recurrent_readers

__all__ = ["InputMoments", "as_matrices", "from_matrices", "moments_at", "watched"]

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONV_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_VALUES = 2**23  # of patches at a time
_BLOCK = 512  # columns of a product at a time
_PLACES = 256  # of an image that patches are taken from: they are much alike
_WANTED = 2**26  # numbers in patches, or
_ROWS_A_COLUMN = 16  # if these are more; beyond, fewer places are drawn, the same of all images


class InputMoments:
    """Sums of the inputs of one layer and of their products, over all its calls.

    A weight is seen as B blocks that multiply different inputs (the groups of a convolution; queries,
    keys and values of attention), each a matrix with a row per output and a column per input.

    Attributes
    ----------
    count : float
        Rows seen, by weight.
    total : tensor of float64, shape (B, columns)
        Their sum.
    total_of_float : tensor of float64, shape (B, columns)
        The sum of the float network's; None without such a network, as ``cross``.
    products : tensor of float64, shape (B, columns, columns)
        The sum of their outer products, not divided by their count; None where not asked for.
    cross : tensor of float64, shape (B, columns, columns)
        The sum of the products of the float network's inputs with them.
    """

    def __init__(self):
        self.count = 0
        self.total = self.total_of_float = self.products = self.cross = None

    def update(
        self,
        rows: torch.Tensor,
        of_float: torch.Tensor | None = None,
        *,
        weight: float = 1.0,
        products: bool = True,
        cross: bool = True,
    ) -> None:
        """Take in rows of shape (B, n, columns), with those of the float network beside them."""
        self.count += weight * rows.shape[1]
        self._add("total", rows.sum(1), weight)
        if of_float is not None:
            self._add("total_of_float", of_float.sum(1), weight)
        if products:
            self._add("products", _gram(rows), weight)
            if of_float is not None and cross:
                self._add("cross", of_float.transpose(1, 2) @ rows, weight)

    def _add(self, name, values, weight):
        total = getattr(self, name)
        if total is None:
            setattr(self, name, weight * values.double())
        else:
            total.add_(values, alpha=weight)

    def centered(self) -> "InputMoments":
        """Return products of what is left without the means."""
        centered = copy(self)
        centered.products = self.products - _outer(self.total, self.total) / self.count
        centered.cross = self.cross - _outer(self.total_of_float, self.total) / self.count
        return centered


def _outer(first, second):
    return first[..., :, None] * second[..., None, :]


def _gram(rows):
    """Return the products of columns: half of them, and their mirror images."""
    columns = rows.shape[2]
    products = rows.new_empty(rows.shape[0], columns, columns)
    for start in range(0, columns, _BLOCK):
        own = slice(start, start + _BLOCK)
        part = rows[..., own].transpose(1, 2) @ rows[..., start:]
        products[:, own, start:], products[:, start:, own] = part, part.transpose(1, 2)
    return products


def moments_at(
    name: str, quantized: Passes, original: Passes | None = None, **wanted: bool
) -> InputMoments:
    """Return the moments of what multiplies a weight.

    Parameters
    ----------
    name : str
        The weight.
    quantized : Passes
        Of the samples, with :func:`watched` weights.
    original : Passes, optional
        Through the float network, of the same samples.
    **wanted : bool
        ``products``, ``cross``: whether they are added up, as they are without it, or sums only.

    Returns
    -------
    InputMoments
        Over all calls of all passes; those of no call if there was none.
    """
    moments = InputMoments()
    of_float = repeat(repeat(None)) if original is None else original.at(name)
    with torch.no_grad():
        for sample, calls, float_calls in zip(
            quantized.samples, quantized.at(name), of_float, strict=False
        ):
            for pair in zip(calls, float_calls, strict=False):
                for rows, float_rows in zip(*map(_rows, pair), strict=False):
                    moments.update(rows, float_rows, weight=sample.weight, **wanted)
    return moments


def _rows(call):
    if call is None:
        return repeat(None)
    reader, *arguments = call
    return reader(*arguments)


def watched(names: Iterable[str], items: Mapping[str, int] | None = None) -> Watched:
    """Return a function that finds the modules whose inputs multiply some weights.

    Parameters
    ----------
    names : iterable of str
        Weights by name. Those of Linear, Conv, ConvTranspose, recurrent and MultiheadAttention
        modules have inputs that can be seen.
    items : dict of str to int, optional
        How many images each weight meets in all: places are drawn from them where there are many.

    Returns
    -------
    callable
        What each module comes with is the function that reads its rows from a call.
    """
    names, items = set(names), items or {}

    def find(module):
        named = {id(p): name for name, p in module.named_parameters() if name in names}
        for child in module.modules():
            for weight, reader in _readers(child):
                name = named.get(id(weight))
                if name is None:
                    continue
                if isinstance(child, _CONV + _CONV_TRANSPOSE) and name in items:
                    reader = partial(reader, items=items[name])
                yield child, name, reader

    return find


def _readers(child):
    """Return the weights of a module with the function that reads their inputs from a call."""
    if isinstance(child, nn.MultiheadAttention):
        separate = [child.q_proj_weight, child.k_proj_weight, child.v_proj_weight]
        projections = [(weight, _attention_part(i)) for i, weight in enumerate(separate)]
        return [
            (child.in_proj_weight, _attention_inputs),
            *projections,
            (child.out_proj.weight, _attention_outputs),
        ]
    if isinstance(child, nn.Linear):
        return [(child.weight, _linear_rows)]
    if isinstance(child, _CONV):
        return [(child.weight, _patches)]
    if isinstance(child, _CONV_TRANSPOSE):
        return [(child.weight, _transposed_patches)]
    if isinstance(child, nn.RNNBase):
        return recurrent_readers(child)
    if isinstance(child, nn.RNNCellBase):
        return cell_readers(child)
    return []


def _first(args, kwargs):
    return widened((args[0] if args else kwargs["input"]).detach())


def _linear_rows(child, args, kwargs):
    yield _first(args, kwargs).reshape(1, -1, child.in_features)


def _three(args, kwargs):
    named = dict(zip(("query", "key", "value"), args, strict=False)) | kwargs
    return [widened(named[name].detach()) for name in ("query", "key", "value")]


def _attention_inputs(child, args, kwargs):
    inputs = _three(args, kwargs)
    for i, values in enumerate(inputs):  # of different lengths: blocks one by one
        rows = values.reshape(-1, values.shape[-1])
        yield torch.stack([rows if i == j else torch.zeros_like(rows) for j in range(3)])


def _attention_part(i):
    def rows(child, args, kwargs):
        values = _three(args, kwargs)[i]
        yield values.reshape(1, -1, values.shape[-1])

    return rows


def _attention_outputs(child, args, kwargs):
    """Give what the output projection gets: the output of attention that projects by the identity."""
    alone = deep_copy(child)
    alone._forward_pre_hooks.clear()
    alone._forward_hooks.clear()
    nn.init.eye_(alone.out_proj.weight)
    if alone.out_proj.bias is not None:
        nn.init.zeros_(alone.out_proj.bias)
    values = widened(alone(*args, **kwargs)[0])
    yield values.reshape(1, -1, values.shape[-1])


def _patches(child, args, kwargs, items=0):
    values = _first(args, kwargs)
    values = values if values.ndim == child.weight.ndim else values[None]
    mode = "constant" if child.padding_mode == "zeros" else child.padding_mode
    places = _places(child, items)
    for part in _parts(values, child, places):
        padded = F.pad(part, child._reversed_padding_repeated_twice, mode=mode)
        yield _windows(padded, child, child.stride, places)


def _transposed_patches(child, args, kwargs, items=0):
    """Patches of the convolution that a transposed one is: zeros between inputs, a flipped kernel."""
    values = _first(args, kwargs)
    values = values if values.ndim == child.weight.ndim else values[None]
    size = args[1] if len(args) > 1 else kwargs.get("output_size")
    sides = values.ndim - 2
    extra = child._output_padding(
        values, size, child.stride, child.padding, child.kernel_size, sides, child.dilation
    )
    padding = []
    for d in reversed(range(sides)):
        around = child.dilation[d] * (child.kernel_size[d] - 1) - child.padding[d]
        padding += [around, around + extra[d]]
    places = _places(child, items)
    for part in _parts(values, child, places):
        spaced = part
        for d, stride in enumerate(child.stride, start=2):
            shape = list(spaced.shape)
            shape[d] = (shape[d] - 1) * stride + 1
            wide = spaced.new_zeros(shape)
            wide[(slice(None),) * d + (slice(None, None, stride),)] = spaced
            spaced = wide
        yield _windows(F.pad(spaced, padding), child, (1,) * sides, places)


def _columns(child):
    """Return how many numbers of an image a patch has."""
    return child.in_channels // child.groups * math.prod(child.kernel_size)


def _places(child, items):
    """Return how many places of each of so many images give enough rows."""
    columns = _columns(child)
    rows = max(_WANTED // columns, _ROWS_A_COLUMN * columns)
    return min(_PLACES, math.ceil(rows / items)) if items else _PLACES


def _parts(values, child, places):
    """Yield images whose patches fit a budget together, or have two rows a column."""
    columns, places = _columns(child), min(places, math.prod(values.shape[2:]))
    rows = max(_VALUES // (child.groups * columns), 2 * columns)
    return values.split(max(1, int(rows // places)))


def _windows(padded, child, strides, places):
    """Return the rows (groups, n, channels of a group x kernel) that a kernel meets."""
    sides = padded.ndim - 2
    for d, (kernel, dilation, stride) in enumerate(
        zip(child.kernel_size, child.dilation, strides, strict=True), start=2
    ):
        padded = padded.unfold(d, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    sizes = padded.shape[2 : 2 + sides]
    n, channels, n_places = *padded.shape[:2], math.prod(sizes)
    if n_places > places:
        drawn = torch.randperm(n_places, generator=torch.Generator().manual_seed(0))[:places]
        index = [i.to(padded.device) for i in torch.unravel_index(drawn, sizes)]
        padded, sizes, n_places = padded[(slice(None), slice(None), *index)], [places], places
    patches = padded.reshape(n, child.groups, channels // child.groups, *sizes, -1)
    patches = patches.movedim(0, 1).movedim(2, -2)
    return patches.reshape(child.groups, n * n_places, -1)


def _owner(module, name):
    path, _, own = name.rpartition(".")
    owner = module.get_submodule(path)
    return owner, own, owner.get_parameter(own).shape


def as_matrices(module: nn.Module, name: str, values: torch.Tensor) -> torch.Tensor:
    """Return values shaped as a weight as blocks of matrices, shape (B, outputs, columns).

    Parameters
    ----------
    module : torch.nn.Module
        Holds the weight.
    name : str
        Its name.
    values : tensor
        Of its shape, or of one that broadcasts to it.

    Returns
    -------
    tensor
        A row per output and a column per input, in the order of :class:`InputMoments`.
    """
    owner, own, shape = _owner(module, name)
    values = values.expand(shape)
    if isinstance(owner, _CONV_TRANSPOSE):
        values = values.flip(list(range(2, values.ndim)))
        values = values.reshape(owner.groups, -1, *values.shape[1:]).transpose(1, 2)
        return values.flatten(2)
    blocks = owner.groups if isinstance(owner, _CONV) else 3 if own == "in_proj_weight" else 1
    return values.reshape(blocks, values.shape[0] // blocks, -1)


def from_matrices(module: nn.Module, name: str, matrices: torch.Tensor) -> torch.Tensor:
    """Invert :func:`as_matrices`.

    Parameters
    ----------
    module : torch.nn.Module
        Holds the weight.
    name : str
        Its name.
    matrices : tensor of shape (B, outputs, columns)
        Blocks.

    Returns
    -------
    tensor
        Of the shape of the weight.
    """
    owner, _, shape = _owner(module, name)
    if not isinstance(owner, _CONV_TRANSPOSE):
        return matrices.reshape(shape)
    values = matrices.reshape(*matrices.shape[:2], -1, *shape[2:]).transpose(1, 2).reshape(shape)
    return values.flip(list(range(2, len(shape))))
