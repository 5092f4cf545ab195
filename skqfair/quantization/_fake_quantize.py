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
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from skqfair.quantization._activations import ActivationQuantizer, ActivationStatistics
from skqfair.quantization._affine import q_max, to_codes, widened
from skqfair.quantization._column_groups import group_sums, spread
from skqfair.quantization._convert import QuantizedModule, bake
from skqfair.quantization._quantize import QuantizedTensor, channel_shape, weight_scale
from skqfair.quantization._scheme import FLOAT_BITS, QuantizationScheme
from skqfair.quantization._targets import activation_targets

__all__ = ["FakeQuantization"]

_NAME = "quantization_scales"
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
        The bits of each layer; its calibration re-estimates the scales.
    learned : bool, default=False
        Learn the scales by gradient instead.
    statistics : dict of str to ActivationStatistics, optional
        Ranges of the inputs of the module; needed for ``scheme.activation_bits``.
    observe : callable, optional
        ``() -> statistics`` of the module as it is, to re-estimate the ranges of inputs.
    """

    def __init__(
        self,
        module: nn.Module,
        scheme: QuantizationScheme,
        *,
        learned: bool = False,
        statistics: dict[str, ActivationStatistics] | None = None,
        observe: Callable[[], dict[str, ActivationStatistics]] | None = None,
    ):
        self.module, self.scheme, self.learned = module, scheme, learned
        self.observe = observe
        self.layer_bits = scheme.resolve(module)
        layouts, parameters = scheme.layouts(module), dict(module.named_parameters())
        self.weights = {
            name: _Weight(parameters[name], bits, **layouts[name])
            for name, bits in self.layer_bits.items()
            if not (isinstance(bits, int) and bits == FLOAT_BITS)
        }
        self.inputs, self.scales, self._gradient, self._handles = {}, None, None, []
        self._active, self._stale, self.n_steps = False, False, 0
        if scheme.activation_bits is not None:
            self._quantize_inputs(statistics)
        for weight in self.weights.values():
            weight.scale = weight.first_scale() if learned else weight.best_scale(scheme.calibration)
        self._hold_scales([*self.weights.values(), *self.inputs.values()])

    @property
    def learned_scales(self) -> list[nn.Parameter]:
        """The parameters of learned scales: one tensor of all, or none."""
        return [] if self._gradient is None else [self.scales]

    def _quantize_inputs(self, statistics):
        """Quantize the inputs of layers from now on, with ranges from these statistics."""
        targets, like = activation_targets(self.module), next(self.module.parameters())
        for name, seen in statistics.items():
            quantizer = seen.quantizer(
                self.scheme.activation_bits,
                self.scheme.activation_calibration,
                self.scheme.activation_scheme,
            )
            hook = self.inputs[name] = FakeQuantizedInput(quantizer, like.device)
            if self.learned and not hook.zero_point:
                hook.scale = hook.first_scale(seen.mean_magnitude, like)
            self._handles.append(targets[name].register_forward_pre_hook(hook, with_kwargs=True))

    def _hold_scales(self, quantized):
        """Hold all scales in one tensor of the module: what stores, restores or trains it has them.

        Each quantized tensor keeps a view of its part, and of its part of the gradient. One tensor
        instead of many saves an optimizer most of its time.
        """
        if not quantized:
            return
        self.scales = torch.cat([q.scale.flatten() for q in quantized])
        limits = [torch.as_tensor(q.limit).to(q.scale).expand(q.scale.shape) for q in quantized]
        self._limits = torch.cat([limit.flatten() for limit in limits])
        if self.learned:
            self._floor, self._gradient = self.scales * _SMALLEST, torch.zeros_like(self.scales)
            self.scales = nn.Parameter(self.scales)
            self.module.register_parameter(_NAME, self.scales)
        else:
            self._limits += 0.5  # where the gradient ends; that of a scale needs the grid's own end
            self.module.register_buffer(_NAME, self.scales)
        self._values, self._bounds = self.scales.detach(), self.scales.detach() * self._limits
        start = 0
        for q in quantized:
            part, shape = slice(start, start + q.scale.numel()), q.scale.shape
            start = part.stop
            q.scale, q.bound = self._values[part].view(shape), self._bounds[part].view(shape)
            if self.learned:
                q.trained, q.gradient = self.scales, self._gradient[part].view(shape)

    def _refresh(self):
        """Keep learned scales positive, and find where all grids end, at once."""
        if self._gradient is not None:
            torch.maximum(self._values, self._floor, out=self._values)
        if self.scales is not None:
            torch.mul(self._values, self._limits, out=self._bounds)

    def _pass_gradient(self):
        """Give latent weights and learned scales their gradients."""
        for weight in self.weights.values():
            weight.pass_gradient()
        if self._gradient is not None:
            grad = self._gradient / self._values
            self.scales.grad = grad if self.scales.grad is None else self.scales.grad + grad

    def rescale(self) -> None:
        """Re-estimate the scales, unless they are learned or no step was taken since the last time."""
        if not self._stale or self.learned:
            return
        self._stale = False
        for weight in self.weights.values():
            weight.scale.copy_(weight.best_scale(self.scheme.calibration))
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
            found = statistics[name].rescaled(hook, self.scheme.activation_calibration)
            hook.scale.copy_(found)

    @contextmanager
    def applied(self, *, training: bool) -> Iterator[None]:
        """Put the dequantized weights in the place of the latent ones inside the block.

        With ``training`` the gradients that the block leaves are passed on to the latent weights and
        the learned scales.
        """
        if self._active:
            yield
            return
        self._active = True
        weights = self.weights.values()
        self._refresh()
        if training and self._gradient is not None:
            self._gradient.zero_()
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
            self._pass_gradient()

    def finish(self) -> QuantizedModule:
        """Return the quantized copy, and leave the module with its latent weights only.

        Returns
        -------
        QuantizedModule
            On the grid of its bits, with the scales of the last step.
        """
        for handle in self._handles:
            handle.remove()
        if self.scales is not None:
            delattr(self.module, _NAME)
        self._refresh()  # after the last step too
        weights = {name: weight.quantized() for name, weight in self.weights.items()}
        inputs = {name: hook.quantizer() for name, hook in self.inputs.items()}
        return bake(self.module, self.layer_bits, weights, inputs)


class _Weight:
    """One quantized parameter: its latent values, its scale, and room for the dequantized values."""

    def __init__(self, parameter, bits, axis, per_channel, group_size):
        self.parameter, self.bits, self.axis, self.per_channel = parameter, bits, axis, per_channel
        self.group_size = group_size
        self.widths = bits if isinstance(bits, int) else torch.as_tensor(bits, device=parameter.device)
        limit, self.room = q_max(self.widths), torch.empty_like(widened(parameter.detach()))
        if isinstance(limit, torch.Tensor):
            limit = limit.to(self.room.dtype).reshape(channel_shape(parameter, axis))
        self.limit, self.scale, self.bound, self.gradient = limit, None, None, None
        self.latent, self.before = None, None

    def best_scale(self, calibration):
        return weight_scale(
            self.parameter.detach(),
            self.widths,
            per_channel=self.per_channel,
            calibration=calibration,
            axis=self.axis,
            group_size=self.group_size,
        )

    def first_scale(self):
        """Return 2 mean|w| / sqrt(q), where a learned scale starts."""
        magnitude = widened(self.parameter.detach()).abs()
        limit = torch.as_tensor(self.limit).to(magnitude)
        if self.group_size is None:
            channels = magnitude.shape[self.axis] if self.per_channel else 1
            shape = channel_shape(magnitude, self.axis) if self.per_channel else ()
            rows = magnitude.movedim(self.axis, 0).reshape(channels, -1)
            mean, count = rows.mean(1).reshape(shape), rows.shape[1]
        else:
            count = self._summed(torch.ones_like(magnitude))
            mean = self._summed(magnitude) / count
        self.factor = (count * limit).rsqrt()
        start = 2 * mean / limit.sqrt()
        return torch.where(start > 0, start, 1.0)

    def _spread(self, values):
        """Return values, one for each scale, so that they broadcast against the weights."""
        return spread(values, self.parameter, self.axis, self.group_size)

    def _summed(self, values):
        """Return the sums over the weights that share a scale."""
        if self.group_size is None:
            return values.sum_to_size(self.gradient.shape)
        return group_sums(values, self.axis, self.group_size)

    def enter(self):
        self.latent, self.before = self.parameter.data, self.parameter.grad
        if self.before is not None:  # of an earlier backward, added up by the user's own step
            self.parameter.grad = None
        scale = self._spread(self.scale.to(self.room.dtype))
        torch.div(widened(self.latent), scale, out=self.room)
        self.room.round_().clamp_(-self.limit, self.limit).mul_(scale)
        self.parameter.data = self.room.to(self.latent.dtype)

    def leave(self):
        if self.latent is not None:  # else Ctrl-C came before it was put away
            self.parameter.data, self.latent = self.latent, None

    def pass_gradient(self):
        """Turn the gradient of the dequantized values into that of the latent ones and the scale."""
        grad, before, self.before = self.parameter.grad, self.before, None
        if grad is None:
            self.parameter.grad = before
            return
        if grad.is_sparse:
            grad = self.parameter.grad = grad.to_dense()
        latent = self.parameter.data
        margin = _margin(latent, self._spread(self.bound.to(latent.dtype)))
        if self.gradient is not None:  # the room still holds codes * scale
            slope = self.room.sub_(_where_inside(latent, margin)).mul_(grad)
            self.gradient.addcmul_(self._summed(slope), self.factor)
            margin.add_(self._spread(self.scale.to(latent.dtype)), alpha=0.5)
        _where_inside(grad, margin, out=grad)
        if before is not None:
            grad.add_(before)

    def quantized(self):
        scale = self.scale.to(self.room.dtype, copy=True)
        values = self.parameter.detach()
        return QuantizedTensor.from_scale(values, scale, self.bits, self.axis, self.group_size)


# Both write in place where they can: a new tensor costs more than the arithmetic.


def _margin(values, bound):
    """Return how far |values| stay below ``bound``."""
    magnitude = values.abs()
    return torch.sub(bound, magnitude, out=magnitude)


def _where_inside(values, margin, out=None):
    """Return the values where ``margin`` is not negative, else 0; several times faster than a mask."""
    out = torch.empty_like(values) if out is None else out
    below_zero = -torch.finfo(margin.dtype).tiny  # zero is inside
    return torch.ops.aten.threshold_backward.grad_input(values, margin, below_zero, grad_input=out)


class _QuantizeInput(torch.autograd.Function):
    """Rounds to codes and back; its gradient goes straight through, and to a learned scale.

    That of the scale is added up in the hook: the tensor of all scales, ``scales``, is an argument
    only to have ``backward`` called where the values themselves need no gradient.
    """

    @staticmethod
    def forward(ctx, values, scales, hook, n_samples):
        ctx.hook, ctx.n_samples, ctx.scale = hook, n_samples, hook.scale.to(widened(values))
        rounded = to_codes(values, ctx.scale, hook.low, hook.high).mul_(ctx.scale).to(values.dtype)
        ctx.save_for_backward(values, None if scales is None else rounded)
        return rounded

    @staticmethod
    def backward(ctx, grad):
        (values, rounded), hook = ctx.saved_tensors, ctx.hook
        bound = hook.bound.to(values)
        margin = _margin(values, bound) if hook.symmetric else bound - values
        if hook.zero_point:  # as far below as the codes reach
            below = values + (bound - ctx.scale * (hook.low + hook.high))
            margin = torch.minimum(margin, below, out=margin)
        if rounded is not None:
            slope = _where_inside(values, margin)
            slope = slope if hook.signed else slope.relu_()
            slope = torch.sub(rounded, slope, out=slope)
            hook.add_gradient(torch.vdot(slope.flatten(), grad.flatten()), values, ctx.n_samples)
            margin.add_(ctx.scale, alpha=0.5)
        if not ctx.needs_input_grad[0]:
            return None, None, None, None
        if not hook.signed:
            margin.clamp_(max=values)  # negative values are clipped
        return _where_inside(grad, margin, out=margin), None, None, None


class FakeQuantizedInput(ActivationQuantizer):
    """A forward pre-hook that quantizes the input of its module, with a gradient."""

    def __init__(self, quantizer, device):
        found = quantizer
        super().__init__(found.scale.to(device), found.bits, found.signed, found.zero_point)
        self.symmetric = self.signed and self.zero_point is None
        self.active, self.limit, self.bound = True, self.high, None
        self.trained, self.gradient, self.n_samples = None, None, 1

    def first_scale(self, mean_magnitude, like):
        """Return 2 mean|x| / sqrt(q), where a learned scale starts."""
        start = 2 * mean_magnitude / math.sqrt(self.high)
        return torch.as_tensor(start if start > 0 else 1.0).to(widened(like))

    def add_gradient(self, slope, values, n_samples):
        """Take in what one call of the module says, times the scale."""
        n_features = max(1, values.numel() / max(1, n_samples))
        largest = max(self.high, -self.low)
        self.gradient.add_(slope, alpha=1 / math.sqrt(n_features * largest))

    def __call__(self, module, args, kwargs):
        """Quantize the first argument, wherever it was passed."""
        if self.trained is not None:
            self.n_samples = _n_samples(module, args[0] if args else kwargs.get("input"))
        return super().__call__(module, args, kwargs)

    def quantize(self, values):
        """Return ``values`` rounded to the codes, in their own dtype."""
        if not self.active:
            return values
        return _QuantizeInput.apply(values, self.trained, self, self.n_samples)

    def quantizer(self):
        """Return the hook of the deployed module."""
        return ActivationQuantizer(self.scale.clone(), self.bits, self.signed, self.zero_point)


def _n_samples(module, values):
    """Return how many samples are in the input of a module; recurrent ones may have time first."""
    if isinstance(values, nn.utils.rnn.PackedSequence):
        return int(values.batch_sizes[0])
    recurrent = isinstance(module, nn.RNNBase)
    if getattr(values, "ndim", 0) < (3 if recurrent else 2):  # a single sample, or nothing to quantize
        return 1
    return values.shape[1 if recurrent and not module.batch_first else 0]
