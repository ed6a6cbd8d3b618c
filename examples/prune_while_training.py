"""Workflow 2, prune while training: the network learns to do without its weakest channels while they leave, a few each epoch.

The sparsity follows the cubic schedule of Zhu & Gupta 2017 (arXiv:1710.01878). The masks hold under any optimizer; between two
epochs `unwrap_model` gives the untouched weights back, so that a channel that was masked too early can return.

    python examples/prune_while_training.py --framework keras --limit 5000
"""

import nnc
from nnc_pruning import L1NormPruner
from workflow import CONFIG_LIST, arguments, show

user, digits, epochs = arguments(__doc__)
final = CONFIG_LIST[0]["sparsity"]

model = user.build()
user.train(model, digits.images, digits.labels, epochs=1)
show(user, digits, "trained for one epoch", model)

for epoch in range(1, epochs + 1):
    sparsity = final * (1 - (1 - epoch / epochs) ** 3)
    pruner = L1NormPruner(model, [{**CONFIG_LIST[0], "sparsity": sparsity}, CONFIG_LIST[1]])
    masked, masks = pruner.compress()
    user.train(masked, digits.images, digits.labels, epochs=1)
    show(user, digits, f"epoch {epoch}, {sparsity:.0%} masked", masked)
    pruner.unwrap_model()

example = user.inputs(digits.images[:2])
small = nnc.ModelSpeedup(model, example, masks).speedup_model()
show(user, digits, "small, no fine-tuning needed", small)
print(nnc.report(model, small, example))
