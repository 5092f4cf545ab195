"""Inputs and hidden states of recurrent modules, against cells that step by hand."""

import pytest
import torch
from moments import moments_of
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

CELLS = {nn.RNN: nn.RNNCell, nn.GRU: nn.GRUCell, nn.LSTM: nn.LSTMCell}


def by_hand(module, sequences, first=None):
    """Return the products of inputs and of states before each step, by weight, one step at a time."""
    products = {}

    def add(name, row):
        products[name] = products.get(name, 0) + torch.outer(row, row).double()

    directions = 2 if module.bidirectional else 1
    for i, sequence in enumerate(sequences):
        values = sequence
        for layer in range(module.num_layers):
            outputs = []
            for backward in range(directions):
                suffix = f"_l{layer}" + "_reverse" * backward
                cell = CELLS[type(module)](values.shape[1], module.hidden_size)
                for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    getattr(cell, part).data.copy_(getattr(module, part + suffix))
                state, found = torch.zeros(1, module.hidden_size), []
                if first is not None:
                    state = first[layer * directions + backward, i][None]
                memory = torch.zeros_like(state)
                for step in values.flip(0) if backward else values:
                    add("weight_ih" + suffix, step)
                    add("weight_hh" + suffix, state[0])
                    if isinstance(cell, nn.LSTMCell):
                        state, memory = cell(step[None], (state, memory))
                    else:
                        state = cell(step[None], state)
                    found.append(state[0])
                outputs.append(torch.stack(found[::-1] if backward else found))
            values = torch.cat(outputs, 1)
    return products


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_products_of_all_weights(kind, packed, batch_first):
    torch.manual_seed(0)
    module = kind(3, 4, num_layers=2, bidirectional=True, batch_first=batch_first).eval()
    lengths = [6, 4, 1] if packed else [6, 6, 6]
    sequences = [torch.randn(n, 3) for n in lengths]
    inputs = nn.utils.rnn.pad_sequence(sequences, batch_first=batch_first)
    if packed:
        inputs = pack_padded_sequence(inputs, lengths, batch_first=batch_first)
    names = [name for name, _ in module.named_parameters() if "weight" in name]
    seen = moments_of(module, names, lambda m: m(inputs))
    with torch.no_grad():
        expected = by_hand(module, sequences)
    assert seen.keys() == expected.keys()
    for name, products in expected.items():
        torch.testing.assert_close(seen[name].products[0], products, rtol=1e-4, atol=1e-5)


def test_first_states_count():
    torch.manual_seed(0)
    module = nn.GRU(3, 4, num_layers=2, batch_first=True).eval()
    sequences, first = torch.randn(5, 6, 3), torch.randn(2, 5, 4)
    names = ["weight_hh_l0", "weight_hh_l1", "weight_ih_l1"]
    seen = moments_of(module, names, lambda m: m(sequences, first))
    with torch.no_grad():
        expected = by_hand(module, sequences, first)
    for name in names:
        torch.testing.assert_close(seen[name].products[0], expected[name], rtol=1e-4, atol=1e-5)


def test_single_sequence_and_cells():
    torch.manual_seed(0)
    module, sequence = nn.RNN(3, 4, nonlinearity="relu").eval(), torch.randn(6, 3)
    outputs = module(sequence)[0].detach().double()
    seen = moments_of(module, ["weight_ih_l0", "weight_hh_l0"], lambda m: m(sequence))
    torch.testing.assert_close(seen["weight_hh_l0"].products[0], outputs[:-1].T @ outputs[:-1])
    cell, state = nn.LSTMCell(3, 4), (torch.randn(6, 4), torch.randn(6, 4))
    seen = moments_of(cell, ["weight_ih", "weight_hh"], lambda m: m(sequence, state))
    torch.testing.assert_close(seen["weight_ih"].products[0], (sequence.T @ sequence).double())
    torch.testing.assert_close(seen["weight_hh"].products[0], (state[0].T @ state[0]).double())
