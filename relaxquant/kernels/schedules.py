"""The files of the schedule table: importing one adds its rows.

========================== ========== ===========================================================
name                       precision  what it is
========================== ========== ===========================================================
nchw_spatial_pack          fp32 int8  direct convolution in register tiles; depthwise in a file of
                                      its own under the same name
reference                  fp32 int8  scalar loops, takes every layer
========================== ========== ===========================================================

Which of them a layer gets is said in `choose`.
"""

from . import conv2d_nchw_spatial_pack, conv2d_reference, depthwise_nchw_spatial_pack

__all__ = ["conv2d_nchw_spatial_pack", "conv2d_reference", "depthwise_nchw_spatial_pack"]
