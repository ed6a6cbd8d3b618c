"""Workflow 3, prune, retrain: pruning finds the shape of a small network, which then learns from scratch.

Liu et al., ICLR 2019 (arXiv:1810.05270) find that a small network trained anew is often as good as one that inherits its weights.

    python examples/prune_retrain.py --framework keras --limit 5000
"""

import nnc
from nnc_pruning import L1NormPruner
from workflow import CONFIG_LIST, arguments, show

user, digits, epochs = arguments(__doc__)

model = user.build()
user.train(model, digits.images, digits.labels, epochs)
show(user, digits, "trained", model)

pruner = L1NormPruner(model, CONFIG_LIST)
_, masks = pruner.compress()
pruner.unwrap_model()

example = user.inputs(digits.images[:2])
small = user.reinitialise(nnc.ModelSpeedup(model, example, masks).speedup_model())
show(user, digits, "small, with fresh weights", small)

user.train(small, digits.images, digits.labels, epochs)
show(user, digits, "small, trained from scratch", small)
print(nnc.report(model, small, example))
