"""mergekit's configurations read as recipes, and recipes written as such, for the methods that both have.

Compared with mergekit 0.1.5 on a tiny LLaMA, whose results agree to float32's rounding. What its methods mean here:

- ``linear``: weights that are normalised, or sum to 1, are ``average``. A base among the inputs counts as one of them.
- ``task_arithmetic``, ``ties``, ``dare_linear``, ``dare_ties``, ``breadcrumbs``: with one weight w for all T models α is
  ``lambda`` · w. With ``normalize`` it is ``lambda`` / T, and with a sign election ``lambda`` and the mean of those that agree.
- Weights that differ between models, and gradients of them over the layers, are the recipe's ``mix``; a gradient of ``lambda``
  is the profile of α in it. Both interpolate alike, and give what lies outside the layers the first value.
- ``ties`` trims each parameter by itself and lets cancelling entries count as positive (``trim=parameter``); the authors, and our
  default, trim over the whole model and give such entries the majority's sign.
- ``dare_*`` enlarge what survives until each parameter's sum of magnitudes is what it was (``rescale=l1``), where the paper
  divides by the density. The draws are not the same: mergekit's depend on the order in which it works, ours on names and seed.
- ``breadcrumbs`` keeps everything at density 1, and fewer outliers are left out where density + gamma exceed 1 (refused here).
- ``model_stock`` may go beyond the base, away from the experts (``limit=off``). It takes the product of two deltas' norms as at
  least 1e-6, which makes cosines of tinier deltas smaller than ours.
- ``slerp`` goes from base_model to the other model: base_model is our first expert and our base.
- ``karcher`` counts experts that are zero in the mean length; ours does not.

mergekit computes in ``dtype``, we in float32 (or float64) with one rounding at the end: with bfloat16 there, ours is closer to
the exact result. Keys that a method of mergekit does not use are noted, as it ignores them too.
"""

from dcmerge.merging.mergekit.reading import METHOD_KEY, from_mergekit
from dcmerge.merging.mergekit.writing import to_mergekit

__all__ = ["METHOD_KEY", "from_mergekit", "to_mergekit"]
