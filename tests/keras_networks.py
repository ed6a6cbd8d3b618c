"""The tests' networks on Keras: the layers and the names are those of tests/torch_networks.py."""

import keras
from keras import layers


def _lenet_layers():
    return [
        layers.Conv2D(20, 5, activation="relu", name="conv1"),
        layers.MaxPooling2D(2, name="pool1"),
        layers.Conv2D(50, 5, activation="relu", name="conv2"),
        layers.MaxPooling2D(2, name="pool2"),
        layers.Flatten(name="flatten"),
        layers.Dense(500, activation="relu", name="fc1"),
        layers.Dense(10, activation="log_softmax", name="fc2"),
    ]


def sequential_lenet():
    return keras.Sequential([keras.Input((28, 28, 1)), *_lenet_layers()])


def functional_lenet():
    image = x = keras.Input((28, 28, 1))
    for layer in _lenet_layers():
        x = layer(x)
    return keras.Model(image, x)


class LeNet(keras.Model):
    """Input (n, 28, 28, 1); the reshape has its 800 hard-coded."""

    def __init__(self):
        super().__init__()
        self.conv1 = layers.Conv2D(20, 5, activation="relu")
        self.conv2 = layers.Conv2D(50, 5, activation="relu")
        self.pool = layers.MaxPooling2D(2)
        self.fc1 = layers.Dense(500, activation="relu")
        self.fc2 = layers.Dense(10, activation="log_softmax")

    def call(self, x):
        x = self.pool(self.conv1(x))
        x = self.pool(self.conv2(x))
        x = keras.ops.reshape(x, (-1, 800))
        return self.fc2(self.fc1(x))


def subclassed_lenet():
    model = LeNet()
    model(keras.ops.zeros((1, 28, 28, 1)))
    return model


def residual():
    image = keras.Input((12, 12, 3))
    norm = {"epsilon": 1e-5}
    x = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    stem = layers.ReLU()(layers.BatchNormalization(name="stem_bn", **norm)(x))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(stem)
    x = layers.ReLU()(layers.BatchNormalization(name="depthwise_bn", **norm)(x))
    x = layers.Conv2D(8, 1, name="project")(x)
    x = layers.Concatenate()([layers.Add()([x, stem]), stem])
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(12, 3, activation="relu", name="mix")(x))
    x = layers.Dense(16, activation="relu", name="hidden")(x)
    return keras.Model(image, layers.Dense(5, name="classes")(x))
