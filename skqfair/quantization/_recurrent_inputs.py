"""What multiplies the weights of recurrent modules: inputs, and hidden states of the step before."""

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from skqfair.quantization._affine import widened

__all__ = ["cell_readers", "recurrent_readers"]


def recurrent_readers(child: nn.RNNBase) -> list:
    """Return the input and hidden weights of a module with the functions that read their inputs.

    Parameters
    ----------
    child : torch.nn.RNNBase
        RNN, LSTM or GRU, of any number of layers and directions.

    Returns
    -------
    list of (Parameter, callable)
        As for other layers. The projection of an LSTM has inputs that are never seen.
    """
    directions = 2 if child.bidirectional else 1
    readers = []
    for layer in range(child.num_layers):
        for backward in range(directions):
            suffix = f"_l{layer}" + "_reverse" * backward
            readers += [
                (getattr(child, f"weight_ih{suffix}"), _reader(layer, None)),
                (getattr(child, f"weight_hh{suffix}"), _reader(layer, backward)),
            ]
    return readers


def cell_readers(child: nn.RNNCellBase) -> list:
    """Return the two weights of a recurrent cell with the functions that read their inputs.

    Parameters
    ----------
    child : torch.nn.RNNCellBase
        RNNCell, LSTMCell or GRUCell.

    Returns
    -------
    list of (Parameter, callable)
        As for other layers.
    """

    def inputs(child, args, kwargs):
        yield _rows(args[0] if args else kwargs["input"])

    def hidden(child, args, kwargs):
        before = args[1] if len(args) > 1 else kwargs.get("hx")
        if before is not None:
            yield _rows(before[0] if isinstance(before, tuple) else before)

    return [(child.weight_ih, inputs), (child.weight_hh, hidden)]


def _rows(values):
    return widened(values.detach()).reshape(1, -1, values.shape[-1])


def _reader(layer, backward):
    """Read the inputs of a layer, or the hidden states that its steps in one direction begin with."""

    def read(child, args, kwargs):
        values = args[0] if args else kwargs["input"]
        first = args[1] if len(args) > 1 else kwargs.get("hx")
        for below in range(layer):
            values = _alone(child, below)(values, _states(child, below, first))[0]
        sequence, inside = _padded(child, values)
        if backward is None:
            yield _rows(sequence[inside])
            return
        outputs = _padded(child, _alone(child, layer)(values, _states(child, layer, first))[0])[0]
        size = outputs.shape[-1] // (2 if child.bidirectional else 1)
        if backward:
            yield _rows(outputs[:, 1:, size:][inside[:, 1:]])
        else:
            yield _rows(outputs[:, :-1, :size][inside[:, 1:]])
        if first is not None:
            yield _rows(
                _of_layer(child, layer, first[0] if isinstance(first, tuple) else first)[backward]
            )

    return read


def _alone(child, layer):
    """Return one layer of a recurrent module as a module."""
    width = child.input_size
    if layer:
        width = (child.proj_size or child.hidden_size) * (2 if child.bidirectional else 1)
    options = {
        "bidirectional": child.bidirectional,
        "batch_first": child.batch_first,
        "bias": child.bias,
    }
    kind = {"LSTM": nn.LSTM, "GRU": nn.GRU}.get(child.mode, nn.RNN)
    if kind is nn.LSTM:
        options["proj_size"] = child.proj_size
    if kind is nn.RNN:
        options["nonlinearity"] = child.mode.removeprefix("RNN_").lower()
    weight = child.weight_ih_l0
    alone = kind(width, child.hidden_size, device=weight.device, dtype=weight.dtype, **options)
    for name, parameter in alone.named_parameters():
        parameter.detach().copy_(getattr(child, name.replace("_l0", f"_l{layer}")).detach())
    return alone.eval()


def _of_layer(child, layer, states):
    """Return the first states of the directions of one layer; 2-D states are of a single sequence."""
    directions = 2 if child.bidirectional else 1
    return states[layer * directions : (layer + 1) * directions]


def _states(child, layer, first):
    if first is None:
        return None
    if isinstance(first, tuple):
        return tuple(_of_layer(child, layer, states) for states in first)
    return _of_layer(child, layer, first)


def _padded(child, values):
    """Return sequences as (samples, steps, features), and which steps are theirs."""
    if isinstance(values, PackedSequence):
        values, lengths = pad_packed_sequence(values, batch_first=True)
    else:
        if values.ndim == 2:  # a single sequence, whatever batch_first says
            values = values[None]
        elif not child.batch_first:
            values = values.transpose(0, 1)
        lengths = torch.full((len(values),), values.shape[1])
    steps = torch.arange(values.shape[1])
    return values, (steps < lengths[:, None]).to(values.device)
