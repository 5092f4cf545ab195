"""Pictures of results, in matplotlib; made from tables, never from the insides of estimators."""

from skqfair.displays._bit_width import BitWidthDisplay
from skqfair.displays._group_diagnostics import GroupDiagnosticsDisplay
from skqfair.displays._hessian_spectrum import HessianSpectrumDisplay
from skqfair.displays._layer_sensitivity import LayerSensitivityDisplay
from skqfair.displays._offset_frontier import OffsetFrontierDisplay

__all__ = [
    "BitWidthDisplay",
    "GroupDiagnosticsDisplay",
    "HessianSpectrumDisplay",
    "LayerSensitivityDisplay",
    "OffsetFrontierDisplay",
]
