"""The Python client of paramill: NumPy arrays in, NumPy arrays out, each answer with the version that gave it.

    import numpy, paramill
    with paramill.Client(["tcp://127.0.0.1:8000"], model="fashion-cnn") as client:
        answer = client.infer(numpy.zeros((1, 1, 28, 28), numpy.float32))
        print(answer.output.argmax(axis=1), answer.version, answer.digest)

Needs pyzmq, protobuf and NumPy (Debian: python3-zmq, python3-protobuf, python3-numpy), and the message modules that the
build generates beside this file (paramill_pb2, inference_pb2).
"""

from .client import (
    Answer,
    Client,
    InvalidRequest,
    NotFound,
    ParamillError,
    RequestTimeout,
    Unavailable,
)

__all__ = ["Answer", "Client", "InvalidRequest", "NotFound", "ParamillError", "RequestTimeout", "Unavailable"]
