"""The vision tower's first layer as the matrix product it is; notebook 03 checks that nothing changes."""

from __future__ import annotations

from types import MethodType


def use_matrix_product(model) -> bool:
    """Let the patch convolution of a Qwen-VL model run as one matrix product; returns whether this model has such a layer.

    Each patch is convolved with a kernel of its own size, so that every output is one dot product per patch: same weights, same result up
    to rounding. On CPUs the backward pass of the convolution is several times slower (``benchmarks/recipes.py`` measures the step
    with and without). Nothing is changed in the weights or in what ``save_pretrained`` writes. A convolution that something else is
    wrapped around, such as an adapter, is left to it, now and if it is wrapped later. ``model``: a ``SentenceTransformer``.
    """
    from torch.nn import Conv3d, functional

    visual = getattr(getattr(model[0], "auto_model", None), "visual", None)
    layer = getattr(visual, "patch_embed", None)
    convolution = getattr(layer, "proj", None)
    if type(convolution) is not Conv3d or tuple(convolution.kernel_size) != tuple(convolution.stride):
        return False
    by_convolution = type(layer).forward

    def forward(self, pixel_values):
        if type(self.proj) is not Conv3d:
            return by_convolution(self, pixel_values)
        weight = self.proj.weight  # (out, channels, frames, 16, 16); pixel_values: (patches, channels x frames x 256)
        return functional.linear(pixel_values.to(weight.dtype), weight.reshape(weight.shape[0], -1), self.proj.bias)

    layer.forward = MethodType(forward, layer)  # bound, so that a deep copy of the model uses its own weights
    return True
