"""A client that sends each request to the router that last answered and moves on to the next when it is silent or
overloaded. An inference may be done twice without harm, so a retry is always safe. A client belongs to one thread."""

import itertools
import time
from dataclasses import dataclass

import numpy
import zmq

from . import inference_pb2, paramill_pb2

PROTOCOL_VERSION = 1
FRAME_MAX = 256 << 20  # bytes; a router cuts the connection of a peer that sends more
_INVALID, _NOT_FOUND, _UNAVAILABLE, _UNSUPPORTED = 1, 2, 7, 10


class ParamillError(Exception):
    """Anything a request can fail with; the message says what and where."""


class InvalidRequest(ParamillError):
    """The request is wrong (name, shape or type): retrying does not help."""


class NotFound(ParamillError):
    """No such model or version is served."""


class Unavailable(ParamillError):
    """The routers answered until the timeout that they cannot."""


class RequestTimeout(ParamillError):
    """No router answered in time."""


@dataclass(frozen=True)
class Answer:
    output: numpy.ndarray  # float32, batch first
    version: int
    digest: str
    latency: float  # seconds


def _failure(error):
    kinds = {_INVALID: InvalidRequest, _UNSUPPORTED: InvalidRequest, _NOT_FOUND: NotFound, _UNAVAILABLE: Unavailable}
    return kinds.get(error.code, ParamillError)(error.text)


class Client:
    def __init__(self, routers, model, version="", timeout=5.0, attempt=None):
        """routers: endpoints; timeout: seconds for a request, fail-over included; attempt: seconds of silence after
        which the next router is tried (default: timeout / number of routers, at most 1)."""
        if isinstance(routers, str):
            routers = [routers]
        if not routers:
            raise InvalidRequest("routers: at least one endpoint, like tcp://127.0.0.1:8000")
        self._model, self._version = model, str(version)
        self._timeout = timeout
        self._attempt = attempt or min(1.0, timeout / len(routers))
        self._context = zmq.Context()
        self._poller = zmq.Poller()
        self._sockets = []
        self._endpoints = list(routers)
        self._current = 0
        self._ids = itertools.count(1)
        for endpoint in routers:
            socket = self._context.socket(zmq.DEALER)
            socket.linger = 0
            socket.connect(endpoint)
            self._poller.register(socket, zmq.POLLIN)
            self._sockets.append(socket)

    def close(self):
        for socket in self._sockets:
            socket.close()
        self._sockets = []
        self._context.term()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def infer(self, array, name="", datatype="FP32"):
        """array: converted to datatype ("FP32" or "INT64", what the model takes), batch first. Returns an Answer."""
        array = numpy.ascontiguousarray(array, dtype={"FP32": "<f4", "INT64": "<i8"}[datatype])
        if array.nbytes > FRAME_MAX:
            raise InvalidRequest(f"an input of {array.nbytes} bytes; at most {FRAME_MAX} are sent")
        begin = time.monotonic()
        number = next(self._ids)
        request = inference_pb2.ModelInferRequest(
            model_name=self._model, model_version=self._version, id=str(number)
        )
        request.inputs.add(name=name, datatype=datatype, shape=array.shape)
        kinds = paramill_pb2.InferEnvelope
        payload, frames = self._ask(
            number, kinds.INFER_REQUEST, request, [array], kinds.INFER_RESPONSE
        )
        response = inference_pb2.ModelInferResponse.FromString(payload)
        if len(response.outputs) != 1 or len(frames) != 1:
            raise ParamillError(f"{len(response.outputs)} outputs in {len(frames)} frames; one in one is understood")
        shape = tuple(response.outputs[0].shape)
        if min(shape, default=1) < 0 or len(frames[0]) != 4 * int(numpy.prod(shape, dtype=numpy.int64)):
            raise ParamillError(f"{len(frames[0])} bytes for an output of shape {shape}")
        digest = next((p.value.string_param for p in response.parameters if p.key == "digest"), "")
        output = numpy.frombuffer(frames[0], dtype="<f4").reshape(shape)
        return Answer(output, int(response.model_version or 0), digest, time.monotonic() - begin)

    def metadata(self):
        """The model's ModelMetadataResponse: names and shapes of its input and output."""
        request = inference_pb2.ModelMetadataRequest(name=self._model, version=self._version)
        kinds = paramill_pb2.InferEnvelope
        payload, _ = self._ask(next(self._ids), kinds.METADATA_REQUEST, request, [], kinds.METADATA_RESPONSE)
        return inference_pb2.ModelMetadataResponse.FromString(payload)

    def _ask(self, number, kind, body, frames, answer_kind):
        deadline = time.monotonic() + self._timeout
        last = None
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                if last:
                    raise last
                raise RequestTimeout(
                    f"no answer within {self._timeout:g} s from {', '.join(self._endpoints)}"
                )
            header = paramill_pb2.Header(
                protocol=PROTOCOL_VERSION, request=number, deadline_ms=max(1, int(left * 1000))
            )
            header.infer.kind = kind
            header.infer.payload = body.SerializeToString()
            self._sockets[self._current].send_multipart([header.SerializeToString(), *frames])
            answer = self._wait(number, min(deadline, time.monotonic() + self._attempt))
            if answer is None:
                self._current = (self._current + 1) % len(self._sockets)
                continue
            header, rest = answer
            if header.WhichOneof("body") == "error":
                last = _failure(header.error)
                if not header.error.retry_after_ms and header.error.code != _UNAVAILABLE:
                    raise last
                self._current = (self._current + 1) % len(self._sockets)
                pause = 0.02 if len(self._sockets) > 1 else max(20, header.error.retry_after_ms) / 1000
                time.sleep(max(0.0, min(pause, deadline - time.monotonic())))
                continue
            if header.WhichOneof("body") != "infer" or header.infer.kind != answer_kind:
                raise ParamillError("the router answered something else")
            return header.infer.payload, rest

    def _wait(self, number, until):
        while (left := until - time.monotonic()) > 0:
            for socket, _ in self._poller.poll(left * 1000):
                parts = socket.recv_multipart()
                header = paramill_pb2.Header()
                try:
                    header.ParseFromString(parts[0])
                except Exception as error:
                    raise ParamillError(f"the router's answer is no paramill header: {error}") from error
                if header.request == number:
                    self._current = self._sockets.index(socket)
                    return header, parts[1:]
        return None
