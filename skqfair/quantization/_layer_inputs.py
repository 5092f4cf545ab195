"""What multiplies each weight: the inputs of a layer as rows of a matrix, and their moments."""

import math
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy, deepcopy

import torch
from torch import nn
from torch.nn import functional as F

from skqfair._copies import deep_copy
from skqfair.quantization._affine import widened
from skqfair.quantization._recurrent_inputs import cell_readers, recurrent_readers

__all__ = ["Beside", "InputMoments", "as_matrices", "from_matrices", "holders", "watch_inputs"]

_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_CONV_TRANSPOSE = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_VALUES = 2**23  # of patches at a time
_PLACES = 256  # of an image that patches are taken from: they are much alike


class InputMoments:
    """Sums of the inputs of one layer and of their products, over all its calls.

    A weight is seen as B blocks that multiply different inputs (the groups of a convolution; queries,
    keys and values of attention), each a matrix with a row per output and a column per input.

    Attributes
    ----------
    count : int
        Rows seen: of images, patches from up to 256 places drawn once.
    total : tensor of float64, shape (B, columns)
        Their sum.
    products : tensor of float64, shape (B, columns, columns)
        The sum of their outer products, not divided by their count; None where not asked for.
    cross : tensor of float64, shape (B, columns, columns)
        The sum of the products of the float network's inputs with them; None without such a network.
    """

    def __init__(self, products=True):
        self.count, self.total, self.products, self.cross = 0, None, None, None
        self._wanted = products

    def update(self, rows: torch.Tensor, of_float: torch.Tensor | None = None) -> None:
        """Take in rows of shape (B, n, columns), with those of the float network beside them."""
        self.count += rows.shape[1]
        self.total = _added(self.total, rows.sum(1))
        if self._wanted:
            self.products = _added(self.products, rows.transpose(1, 2) @ rows)
        if of_float is not None:
            self.cross = _added(self.cross, of_float.transpose(1, 2) @ rows)

    def add(self, other: "InputMoments", weight: float = 1.0) -> None:
        """Take in other rows, each of which counts as ``weight`` rows."""
        self.count += weight * other.count
        for name in ("total", "products", "cross"):
            values = getattr(other, name)
            if values is not None:
                setattr(self, name, _added(getattr(self, name), weight * values))

    def centered(self, of_float: "InputMoments") -> "InputMoments":
        """Return products of what is left without the means, with the sums of the float network."""
        centered = copy(self)
        centered.products = self.products - _outer(self.total, self.total) / self.count
        centered.cross = self.cross - _outer(of_float.total, self.total) / self.count
        return centered


def _outer(first, second):
    return first[..., :, None] * second[..., None, :]


def _added(total, values):
    values = values.double()
    return values if total is None else total.add_(values)


class Beside(nn.Module):
    """Passes what it gets through a float module, then through a quantized one.

    Parameters
    ----------
    original, quantized : torch.nn.Module
        The two; the outputs are those of the second.
    """

    def __init__(self, original, quantized):
        super().__init__()
        self.original, self.quantized = original, quantized

    def forward(self, *args, **kwargs):
        """Return the outputs of the quantized module."""
        self.original(*args, **kwargs)
        return self.quantized(*args, **kwargs)


@contextmanager
def watch_inputs(
    module: nn.Module, names: list[str], *, products: bool = True, original: nn.Module | None = None
) -> Iterator[dict[str, InputMoments]]:
    """Collect the moments of the inputs of some weights while data flows through.

    Parameters
    ----------
    module : torch.nn.Module
        Float or quantized; hooks are attached and removed again.
    names : list of str
        Weights by name. Those of Linear, Conv, ConvTranspose, recurrent and MultiheadAttention
        modules have inputs that can be seen.
    products : bool, default=True
        Whether products are added up, or sums only.
    original : torch.nn.Module or None, default=None
        The float network, whose inputs are multiplied with those of ``module``. The data must flow
        through both, by :class:`Beside`.

    Yields
    ------
    dict of str to InputMoments
        By name, in the order of the first call. What is never called is not there.
    """
    found, handles, calls = {}, [], {}

    def keep(name, reader):
        def hook(child, args, kwargs):
            calls.setdefault(name, deque()).append((reader, child, *deepcopy((args, kwargs))))

        return hook

    def take(name, reader):
        def hook(child, args, kwargs):
            moments = found.setdefault(name, InputMoments(products))
            if original is None:
                for rows in reader(child, args, kwargs):
                    moments.update(rows)
                return
            read, *call = calls[name].popleft()
            for rows, of_float in zip(reader(child, args, kwargs), read(*call), strict=True):
                moments.update(rows, of_float)

        return hook

    try:
        for owner, hook in ((original, keep), (module, take)):
            for child, name, reader in _watched(owner, names):
                handles.append(child.register_forward_pre_hook(hook(name, reader), with_kwargs=True))
        with torch.no_grad():
            yield found
    finally:
        for handle in handles:
            handle.remove()


def _watched(module, names):
    """Yield the modules that hold some weights, with name and reader of each weight."""
    if module is None:
        return
    wanted = {id(p): name for name, p in module.named_parameters() if name in names}
    for child in module.modules():
        for weight, reader in _readers(child):
            if weight is not None and id(weight) in wanted:
                yield child, wanted[id(weight)], reader


def holders(module: nn.Module, name: str) -> list[nn.Module]:
    """Return the modules whose inputs multiply a weight.

    Parameters
    ----------
    module : torch.nn.Module
        Holds the weight.
    name : str
        Its name.

    Returns
    -------
    list of torch.nn.Module
        Those that :func:`watch_inputs` watches.
    """
    return [child for child, _, _ in _watched(module, [name])]


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


def _patches(child, args, kwargs):
    values = _first(args, kwargs)
    values = values if values.ndim == child.weight.ndim else values[None]
    mode = "constant" if child.padding_mode == "zeros" else child.padding_mode
    for part in values.split(_samples(values, child)):
        padded = F.pad(part, child._reversed_padding_repeated_twice, mode=mode)
        yield _windows(padded, child, child.stride)


def _transposed_patches(child, args, kwargs):
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
    for part in values.split(_samples(values, child)):
        spaced = part
        for d, stride in enumerate(child.stride, start=2):
            shape = list(spaced.shape)
            shape[d] = (shape[d] - 1) * stride + 1
            wide = spaced.new_zeros(shape)
            wide[(slice(None),) * d + (slice(None, None, stride),)] = spaced
            spaced = wide
        yield _windows(F.pad(spaced, padding), child, (1,) * sides)


def _samples(values, child):
    """Return how many samples' patches fit a budget."""
    return max(1, _VALUES // (_PLACES * values.shape[1] * math.prod(child.kernel_size)))


def _windows(padded, child, strides):
    """Return the rows (groups, n, channels of a group x kernel) that a kernel meets."""
    sides = padded.ndim - 2
    for d, (kernel, dilation, stride) in enumerate(
        zip(child.kernel_size, child.dilation, strides, strict=True), start=2
    ):
        padded = padded.unfold(d, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    sizes = padded.shape[2 : 2 + sides]
    n, channels, n_places = *padded.shape[:2], math.prod(sizes)
    if n_places > _PLACES:
        drawn = torch.randperm(n_places, generator=torch.Generator().manual_seed(0))[:_PLACES]
        index = [i.to(padded.device) for i in torch.unravel_index(drawn, sizes)]
        padded, sizes, n_places = padded[(slice(None), slice(None), *index)], [_PLACES], _PLACES
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
