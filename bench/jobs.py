"""The jobs whose models the peers' programs have too."""
TEXT = """
name: NAME
seed: 1
model:
  input: {name: x, shape: [SHAPE]}
  layers: [LAYERS]
DATA
loss: softmax_cross_entropy
OPTIMIZER
precision: PRECISION
batch: BATCH
lanes: 2
epochs: EPOCHS
cluster: {servers: 2, workers: 2}
checkpoint: {store: STORE, keep: 1}
"""
IMAGES = """data:
  train:
    features: /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
    targets: /usr/share/datasets/fashion-mnist/train-labels-idx1-ubyte.gz"""
CHARACTERS = "data: {type: text, path: input.txt, context: 64}"
MOMENTUM = "optimizer: {kind: momentum, learning_rate: 0.05}"
ADAMW = "optimizer: {kind: adamw, learning_rate: 0.001}"
DENSE = "{op: Gemm, units: %d}"
CONV = "{op: Conv, channels: %d, kernel: 3, pad: 1}, {op: Relu}, {op: MaxPool, kernel: 2}"
LAYERS = {
    "mlp": ", {op: Relu}, ".join(DENSE % n for n in (512, 256, 10)),
    "cnn": f"{CONV % 32}, {CONV % 64}, {{op: Flatten}}, {DENSE % 128}, {{op: Relu}}, {DENSE % 10}",
    "gpt": "{op: Embedding, vocabulary: 65, units: 128}, {op: PositionEmbedding}, "
    + "{op: Transformer, heads: 4}, " * 4 + "{op: LayerNormalization}, {op: MatMul, units: 65, no_bias: true}",
}
SHAPES = {"mlp": "784", "cnn": "1, 28, 28", "gpt": "64"}


def write(folder, name, batch, epochs=1, precision="f32"):
    """Writes the job FOLDER/NAME.yaml with its store beside it and returns its path."""
    job = folder / f"{name}.yaml"
    text = TEXT.replace("NAME", name).replace("SHAPE", SHAPES[name]).replace("LAYERS", LAYERS[name])
    text = text.replace("DATA", CHARACTERS if name == "gpt" else IMAGES).replace("BATCH", str(batch))
    text = text.replace("OPTIMIZER", ADAMW if name == "gpt" else MOMENTUM).replace("EPOCHS", str(epochs))
    text = text.replace("PRECISION", precision)
    job.write_text(text.replace("STORE", str(folder / f"store-{name}")))
    return job
