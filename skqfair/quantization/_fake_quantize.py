r"""Quantized weights and inputs during training: rounded forward, straight through backward.

The straight-through estimator passes the gradient where :math:`|w / S| \le q + 1/2`, and stops it
where the code is clipped. With learned scales (LSQ)

.. math:: \frac{\partial \hat w}{\partial S} = \begin{cases} \mathrm{round}(w / S) - w / S
          & |w / S| \le q \\ \pm q & \text{else} \end{cases}

times a gradient scale :math:`1 / \sqrt{n q}`, with n the values that share S.

References
----------
Esser, S. K. et al. (2020). Learned step size quantization. ICLR.
"""

import math
from contextlib import contextmanager

import torch
from torch import nn

from skqfair.quantization._activations import ActivationQuantizer
from skqfair.quantization._affine import q_max
from skqfair.quantization._convert import bake
from skqfair.quantization._quantize import QuantizedTensor, channel_shape, weight_scale
from skqfair.quantization._scheme import FLOAT_BITS
from skqfair.quantization._targets import activation_targets, quantizable_weights

__all__ = ["FakeQuantization"]

_SMALLEST = 1e-3  # of its start: a learned scale stays positive


class FakeQuantization:
    """Quantizes the weights of a module around each step of its training, and its inputs in it.

    The module keeps its float ("latent") weights, which the optimizer moves. Inside
    :meth:`applied` they are replaced by the dequantized ones, so that any module, however it uses
    its weights, runs forward and backward on what will be deployed; afterwards the gradients are
    those of the straight-through estimator.

    Parameters
    ----------
    module : torch.nn.Module
        Plain float module (see :func:`plain_copy`), trained in place.
    scheme : QuantizationScheme
        What to quantize; its calibration re-estimates the scales.
    learned : bool, default=False
        Learn the scales by gradient instead.
    statistics : dict of str to ActivationStatistics, optional
        Of the module; needed for ``scheme.activation_bits``.
    observe : callable, optional
        ``() -> statistics`` of the module as it is, to re-estimate the ranges of inputs.
    """

    def __init__(self, module, scheme, *, learned=False, statistics=None, observe=None):
        self.module, self.scheme, self.learned = module, scheme, learned
        self.observe = observe
        self.layer_bits = scheme.resolve(module)
        axes, parameters = quantizable_weights(module), dict(module.named_parameters())
        self.weights = {
            name: _Weight(parameters[name], bits, axes[name], scheme.per_channel)
            for name, bits in self.layer_bits.items()
            if not (isinstance(bits, int) and bits == FLOAT_BITS)
        }
        self.inputs = {}
        self._handles, self._registered = [], []
        self._active, self._stale, self.n_steps = False, False, 0
        if scheme.activation_bits is not None:
            self._quantize_inputs(statistics)
        for weight in self.weights.values():
            weight.learn() if learned else weight.rescale(scheme.calibration)
        self._register_scales()

    @property
    def learned_scales(self):
        """The parameters of learned scales."""
        return [q.scale for q in self._quantized() if isinstance(q.scale, nn.Parameter)]

    def _quantized(self):
        return [*self.weights.values(), *self.inputs.values()]

    def _quantize_inputs(self, statistics):
        """Quantize the inputs of layers from now on, with ranges from these statistics."""
        targets, like = activation_targets(self.module), next(self.module.parameters())
        for name, seen in statistics.items():
            quantizer = seen.quantizer(self.scheme.activation_bits, self.scheme.calibration)
            hook = self.inputs[name] = FakeQuantizedInput(quantizer, like.device)
            if self.learned:
                hook.learn(seen.mean_magnitude, like)
            self._handles.append(targets[name].register_forward_pre_hook(hook, with_kwargs=True))

    def _register_scales(self):
        """Make the scales a part of the module, so that what stores and restores it has them."""
        register = self.module.register_parameter if self.learned else self.module.register_buffer
        for i, quantized in enumerate(self._quantized()):
            self._registered.append(f"quantization_scale_{i}")
            register(self._registered[-1], quantized.scale)

    def rescale(self):
        """Re-estimate the scales, unless they are learned or no step was taken since the last time."""
        if not self._stale or self.learned:
            return
        self._stale = False
        for weight in self.weights.values():
            weight.rescale(self.scheme.calibration)
        if not self.inputs or self.observe is None:
            return
        for hook in self.inputs.values():
            hook.active = False
        try:
            with self.applied(training=False):
                statistics = self.observe()
        finally:
            for hook in self.inputs.values():
                hook.active = True
        for name, hook in self.inputs.items():
            found = statistics[name].quantizer(hook.bits, self.scheme.calibration, signed=hook.signed)
            hook.scale.copy_(found.scale)

    @contextmanager
    def applied(self, *, training):
        """Put the dequantized weights in the place of the latent ones inside the block.

        With ``training`` the gradients that the block leaves are passed on to the latent weights and
        the learned scales.
        """
        if self._active:
            yield
            return
        self._active = True
        weights = self.weights.values()
        try:
            for weight in weights:
                weight.enter()
            yield
        finally:
            for weight in weights:
                weight.leave()
            self._active = False
        if training:
            self._stale, self.n_steps = True, self.n_steps + 1
            for weight in weights:
                weight.pass_gradient()

    def finish(self):
        """Return the quantized copy, and leave the module with its latent weights only.

        Returns
        -------
        QuantizedModule
            On the grid of its bits, with the scales of the last step.
        """
        for handle in self._handles:
            handle.remove()
        for name in self._registered:
            delattr(self.module, name)
        self._handles, self._registered = [], []
        weights = {name: weight.quantized() for name, weight in self.weights.items()}
        inputs = {name: hook.quantizer() for name, hook in self.inputs.items()}
        return bake(self.module, self.layer_bits, weights, inputs)


class _Weight:
    """One quantized parameter: its latent values, its scale, and room for the dequantized values."""

    def __init__(self, parameter, bits, axis, per_channel):
        self.parameter, self.bits, self.axis, self.per_channel = parameter, bits, axis, per_channel
        self.widths = bits if isinstance(bits, int) else torch.as_tensor(bits, device=parameter.device)
        limit = q_max(self.widths)
        if isinstance(limit, torch.Tensor):
            limit = limit.to(parameter.dtype).reshape(channel_shape(parameter, axis))
        self.limit, self.scale, self.floor = limit, None, None
        self.latent, self.before = None, None
        self.room = torch.empty_like(parameter, requires_grad=False)

    def rescale(self, calibration):
        scale = weight_scale(
            self.parameter.detach(),
            self.widths,
            per_channel=self.per_channel,
            calibration=calibration,
            axis=self.axis,
        )
        self.scale = scale if self.scale is None else self.scale.copy_(scale)

    def learn(self):
        """Make the scale a parameter that starts at 2 mean|w| / sqrt(q)."""
        magnitude = self.parameter.detach().abs()
        if self.per_channel:
            self.shared = [d for d in range(magnitude.ndim) if d != self.axis % magnitude.ndim]
        else:
            self.shared = list(range(magnitude.ndim))
        mean = magnitude.mean(self.shared, keepdim=self.per_channel) if self.shared else magnitude
        grid = torch.as_tensor(self.limit, dtype=mean.dtype, device=mean.device)
        start = 2 * mean / (grid if self.per_channel else grid.max()).sqrt()
        self.scale = nn.Parameter(torch.where(start > 0, start, 1.0))
        self.floor = self.scale.detach() * _SMALLEST
        n = self.parameter.numel() / self.scale.numel()
        self.factor = (n * grid).rsqrt() if self.per_channel else (n * grid.max()).rsqrt()

    def enter(self):
        self.latent, self.before = self.parameter.data, self.parameter.grad
        if self.before is not None:  # of an earlier backward, added up by the user's own step
            self.parameter.grad = None
        scale = _positive_(self.scale, self.floor).data
        torch.div(self.latent, scale, out=self.room)
        self.room.round_().clamp_(-self.limit, self.limit).mul_(scale)
        self.parameter.data = self.room

    def leave(self):
        self.parameter.data, self.latent = self.latent, None

    def pass_gradient(self):
        """Turn the gradient of the dequantized values into that of the latent ones and the scale."""
        grad, before, self.before = self.parameter.grad, self.before, None
        if grad is None:
            self.parameter.grad = before
            return
        if grad.is_sparse:
            grad = self.parameter.grad = grad.to_dense()
        latent, scale = self.parameter.data, self.scale.data
        if isinstance(self.scale, nn.Parameter):
            self._scale_gradient(grad, latent, scale)
        _zero_beyond_(grad, latent, scale * (self.limit + 0.5))
        if before is not None:
            grad.add_(before)

    def _scale_gradient(self, grad, latent, scale):
        slope = _scale_slope(latent / scale, -self.limit, self.limit).mul_(grad)
        slope = slope.sum(self.shared, keepdim=self.per_channel) if self.shared else slope
        slope = slope * self.factor
        self.scale.grad = slope if self.scale.grad is None else self.scale.grad + slope

    def quantized(self):
        scale = _positive_(self.scale, self.floor).detach().clone()  # after the last step too
        return QuantizedTensor.from_scale(self.parameter.detach(), scale, self.bits, self.axis)


def _positive_(scale, floor):
    """Return the scale, lifted to its floor in place if it is learned (else there is no floor)."""
    if floor is not None:
        torch.maximum(scale.data, floor, out=scale.data)
    return scale


_keep_where_positive = torch.ops.aten.threshold_backward


def _zero_beyond_(grad, values, largest):
    """Set ``grad`` to 0 where |values| > largest, in place; several times faster than a mask."""
    margin = values.abs().neg_().add_(largest)
    return _keep_where_positive.grad_input(grad, margin, _below_zero(grad), grad_input=grad)


def _below_zero(values):
    """Return the largest negative number: zero is kept too."""
    return -torch.finfo(values.dtype).tiny


def _scale_slope(ratio, low, high):
    """Return the derivative of the dequantized values by the scale.

    Inside the grid it is round(r) - r; beyond it, the limit.
    """
    inside = ratio.clamp(low, high)
    beyond = (ratio - inside).abs_()
    return inside.round().sub_(inside).add_(_keep_where_positive(inside, beyond, 0))


class _QuantizeInput(torch.autograd.Function):
    """Rounds to codes and back; its gradient goes straight through, and to a learned scale."""

    @staticmethod
    def forward(ctx, values, scale, low, high, factor):
        ctx.save_for_backward(values, scale)
        ctx.low, ctx.high, ctx.factor = low, high, factor
        return (values / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx, grad):
        values, scale = ctx.saved_tensors
        to_values = to_scale = None
        if ctx.needs_input_grad[0]:
            largest = scale * (ctx.high + 0.5)
            to_values = _zero_beyond_(grad.clone(), values, largest)
            if not ctx.low:
                to_values = _keep_where_positive(to_values, values, _below_zero(values))
        if ctx.needs_input_grad[1]:
            slope = _scale_slope(values / scale, ctx.low, ctx.high)
            to_scale = torch.vdot(slope.flatten(), grad.flatten()).mul_(ctx.factor(values))
        return to_values, to_scale, None, None, None


class FakeQuantizedInput(ActivationQuantizer):
    """A forward pre-hook that quantizes the input of its module, with a gradient."""

    def __init__(self, quantizer, device):
        super().__init__(quantizer.scale.to(device), quantizer.bits, quantizer.signed)
        self.active, self.floor = True, None

    def learn(self, mean_magnitude, like):
        """Make the scale a parameter that starts at 2 mean|x| / sqrt(q)."""
        start = 2 * mean_magnitude / math.sqrt(self.high)
        start = torch.as_tensor(start if start > 0 else 1.0, dtype=like.dtype, device=like.device)
        self.scale, self.floor = nn.Parameter(start), start * _SMALLEST

    def _factor(self, values):
        return 1 / math.sqrt(max(1, values.numel() / max(1, len(values))) * self.high)

    def quantize(self, values):
        """Return ``values`` rounded to the codes, in their own dtype."""
        if not self.active:
            return values
        scale = _positive_(self.scale, self.floor)
        return _QuantizeInput.apply(values, scale.to(values), self.low, self.high, self._factor)

    def quantizer(self):
        """Return the hook of the deployed module."""
        scale = _positive_(self.scale, self.floor).detach().clone()
        return ActivationQuantizer(scale, self.bits, self.signed)
