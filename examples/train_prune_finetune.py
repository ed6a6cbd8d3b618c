"""Workflow 1, train, prune, fine-tune: the usual one where a trained network is there already.

python examples/train_prune_finetune.py --framework keras --limit 5000
"""

import nnc
from nnc_pruning import L1NormPruner
from workflow import CONFIG_LIST, arguments, show

user, digits, epochs = arguments(__doc__)

model = user.build()
user.train(model, digits.images, digits.labels, epochs)
show(user, digits, "trained", model)

pruner = L1NormPruner(model, CONFIG_LIST)
masked, masks = pruner.compress()
show(user, digits, "masked", masked)
pruner.unwrap_model()

example = user.inputs(digits.images[:2])
small = nnc.ModelSpeedup(model, example, masks).speedup_model()
show(user, digits, "small, the same numbers", small)

user.train(small, digits.images, digits.labels, epochs=1)
show(user, digits, "small, fine-tuned", small)
print(nnc.report(model, small, example))
