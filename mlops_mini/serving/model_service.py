"""What is asked about models instead of a prediction: metadata, status, another set of them.

All methods expect to be called on a worker thread: most of them need TensorFlow Serving's own
messages, whose import takes seconds.

Source: tensorflow_serving/apis/{get_model_metadata,get_model_status,model_management}.proto
"""

from __future__ import annotations

import json

from mlops_mini import wire
from mlops_mini.errors import CODE_NAMES, InvalidArgumentError, PermissionDeniedError
from mlops_mini.serving import lifecycle, model_config
from mlops_mini.serving.models import Models
from mlops_mini.wire import ModelSpec
from mlops_mini.wire_messages import parse


class ModelService:
    """Answers in bytes; `models` is what it tells about.

    Every method raises an `MlopsMiniError` whose code and text are what TensorFlow Serving answers.
    """

    def __init__(self, models: Models, *, may_manage: bool = False) -> None:
        """Tell about these models.

        Args:
            models: All models.
            may_manage: Let requests change which models are served. Whoever reaches the port may
                then load any folder of this machine, and a model is a program.
        """
        self._models = models
        self._may_manage = may_manage

    def metadata(self, request_bytes: bytes) -> bytes:
        """Answer a serialized GetModelMetadataRequest with a GetModelMetadataResponse."""
        from tensorflow_serving.apis import get_model_metadata_pb2 as pb2

        request = parse(pb2.GetModelMetadataRequest, request_bytes)
        spec = wire.read_spec(request)
        if spec is None:
            raise InvalidArgumentError("Missing ModelSpec")
        if not request.metadata_field:
            raise InvalidArgumentError(
                "GetModelMetadataRequest must specify at least one metadata_field"
            )
        for field in request.metadata_field:
            if field != "signature_def":
                raise InvalidArgumentError(f"Metadata field {field} is not supported")
        response = pb2.GetModelMetadataResponse()
        with lifecycle.acquire(self._models.by_name, spec) as servable:
            wire.fill_spec(response.model_spec, ModelSpec(name=spec.name, version=servable.version))
            signatures = pb2.SignatureDefMap(signature_def=servable.signature_defs)
            response.metadata["signature_def"].Pack(signatures)
        return bytes(response.SerializeToString())

    def metadata_json(self, spec: ModelSpec) -> bytes:
        """Describe the signatures of a version over REST."""
        from google.protobuf import json_format

        with lifecycle.acquire(self._models.by_name, spec) as servable:
            signature_defs = {
                key: json_format.MessageToDict(
                    definition,
                    always_print_fields_with_no_presence=True,
                    preserving_proto_field_name=True,
                )
                for key, definition in sorted(servable.signature_defs.items())
            }
            answered = {
                "name": spec.name,
                "version": str(servable.version),
                "signature_name": "",
            }
        metadata = {"signature_def": {"signature_def": signature_defs}}
        answer = {"model_spec": answered, "metadata": metadata}
        return (json.dumps(answer, indent=1) + "\n").encode()

    def status(self, request_bytes: bytes) -> bytes:
        """Answer a serialized GetModelStatusRequest with a GetModelStatusResponse."""
        from tensorflow_serving.apis import get_model_status_pb2 as pb2

        spec = wire.read_spec(parse(pb2.GetModelStatusRequest, request_bytes))
        if spec is None:
            raise InvalidArgumentError("Missing ModelSpec")
        response = pb2.GetModelStatusResponse()
        for status in self._models.statuses(spec.name, version=spec.version):
            entry = response.model_version_status.add()
            entry.version, entry.state = status.version, status.state
            entry.status.error_code = status.error_code
            entry.status.error_message = status.error_message
        return bytes(response.SerializeToString())

    def status_json(self, spec: ModelSpec) -> bytes:
        """Describe the state of a model's versions over REST, highest first.

        This one takes no time; it may be called on the event loop.
        """
        statuses = [
            {
                "version": str(status.version),
                "state": status.state.name,
                "status": {
                    "error_code": CODE_NAMES[status.error_code],
                    "error_message": status.error_message,
                },
            }
            for status in self._models.statuses(spec.name, version=spec.version)
        ]
        return (json.dumps({"model_version_status": statuses}, indent=1) + "\n").encode()

    def reload(self, request_bytes: bytes, timeout_s: float | None) -> bytes:
        """Answer a serialized ReloadConfigRequest, once its models are there or have failed."""
        from tensorflow_serving.apis import model_management_pb2 as pb2

        if not self._may_manage:
            raise PermissionDeniedError(
                "this server does not let requests change its models, because other machines reach"
                " it: edit the file of --model_config_file, or start it with"
                " --enable_model_management, or with an --ssl_config_file that has client_verify"
            )
        request = parse(pb2.ReloadConfigRequest, request_bytes)
        if request.config.WhichOneof("config") != "model_config_list":
            raise InvalidArgumentError(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only"
                " ModelConfigList is currently supported"
            )
        self._models.replace(model_config.from_message(request.config), timeout_s=timeout_s)
        response = pb2.ReloadConfigResponse()
        response.status.SetInParent()
        for metric in request.metric_names:  # none of the counters exists, so none has risen
            response.metric.add(name=metric, int64_value_increase=0)
        return bytes(response.SerializeToString())
