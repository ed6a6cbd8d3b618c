"""Small transformers on both frameworks, and a way to train one with what `nnc.compress` put on it."""

import numpy as np

BATCH, LENGTH, WORDS, CLASSES = 8, 7, 60, 3


def tokens():
    """Return token ids and their mask, `(8, 7)`: the last five sentences end two tokens early."""
    ids = np.random.default_rng(0).integers(1, WORDS, (BATCH, LENGTH))
    mask = np.ones_like(ids)
    mask[3:, 5:] = 0
    return ids, mask


class Torch:
    name = "torch"
    #: The layers of a block that give queries, keys and values.
    qkv = ("attention.self.query", "attention.self.key", "attention.self.value")

    def bert(self, width=16, layers=2, heads=4, classes=CLASSES, attention="sdpa"):
        import torch
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(width + layers)
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 32}
        dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = BertConfig(vocab_size=WORDS, initializer_range=0.3, num_labels=classes, attn_implementation=attention, **sizes, **dropout)
        return BertForSequenceClassification(config)

    def inputs(self, ids, mask):
        import torch

        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}

    def block(self, number):
        return f"bert.encoder.layer.{number}"

    def train(self, compress, student, inputs, steps=20, labels=None):
        """Train in a loop of the user's own; return what `compress` gave, and the loss of each step."""
        import torch

        optimizer = torch.optim.Adam(student.parameters(), 5e-3)
        c = compress(optimizer)
        losses = []
        student.train()
        for _ in range(steps):
            logits = student(**inputs).logits
            task = None if labels is None else torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels))
            loss = c.loss(task)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        return c, losses

    def logits(self, model, inputs):
        import torch

        training = model.training
        with torch.no_grad():
            found = model.eval()(**inputs).logits.numpy()
        model.train(training)
        return found

    def parameters(self, model):
        return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}


class Keras:
    name = "keras"
    qkv = ("self_attention_layer.query_dense", "self_attention_layer.key_dense", "self_attention_layer.value_dense")

    def bert(self, width=16, layers=2, heads=4, classes=CLASSES):
        import keras
        import keras_hub

        keras.utils.set_random_seed(width + layers)
        sizes = {"hidden_dim": width, "num_layers": layers, "num_heads": heads, "intermediate_dim": 32, "name": "bert_backbone"}
        backbone = keras_hub.models.BertBackbone(vocabulary_size=WORDS, max_sequence_length=LENGTH, dropout=0.0, **sizes)
        model = keras_hub.models.BertTextClassifier(backbone, num_classes=classes, preprocessor=None, dropout=0.0)
        for weight in model.weights:
            if weight.name in ("kernel", "embeddings"):
                weight.assign(weight * 15)  # Keras draws them as small as BERT's authors did: all attention would be alike
        return model

    def inputs(self, ids, mask):
        return {"token_ids": ids, "padding_mask": mask, "segment_ids": np.zeros_like(ids)}

    def block(self, number):
        return f"transformer_layer_{number}"

    def train(self, compress, student, inputs, steps=20, labels=None):
        import keras

        c = compress(None)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        c.model.compile(optimizer=keras.optimizers.Adam(5e-3), loss=loss)
        labels = np.zeros(BATCH, int) if labels is None else labels
        history = c.model.fit(inputs, labels, batch_size=BATCH, epochs=steps, shuffle=False, verbose=0)
        return c, history.history["loss"]

    def logits(self, model, inputs):
        return np.asarray(model(inputs, training=False))

    def parameters(self, model):
        return {f"{number} {weight.name}": weight.numpy() for number, weight in enumerate(model.weights)}


MODELS = {"torch": Torch(), "keras": Keras()}
