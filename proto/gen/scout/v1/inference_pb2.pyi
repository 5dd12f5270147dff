import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from scout.v1 import types_pb2 as _types_pb2
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GenerateRequest(_message.Message):
    __slots__ = ("context_text", "context_hash", "question", "deadline", "sampling", "mode", "retention", "execution", "model")
    CONTEXT_TEXT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_HASH_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    context_text: str
    context_hash: bytes
    question: str
    deadline: _duration_pb2.Duration
    sampling: _types_pb2.Sampling
    mode: _types_pb2.Mode
    retention: float
    execution: _types_pb2.Execution
    model: str
    def __init__(self, context_text: _Optional[str] = ..., context_hash: _Optional[bytes] = ..., question: _Optional[str] = ..., deadline: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., sampling: _Optional[_Union[_types_pb2.Sampling, _Mapping]] = ..., mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., retention: _Optional[float] = ..., execution: _Optional[_Union[_types_pb2.Execution, str]] = ..., model: _Optional[str] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("started", "token", "finished")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    started: Started
    token: Token
    finished: Finished
    def __init__(self, started: _Optional[_Union[Started, _Mapping]] = ..., token: _Optional[_Union[Token, _Mapping]] = ..., finished: _Optional[_Union[Finished, _Mapping]] = ...) -> None: ...

class Started(_message.Message):
    __slots__ = ("session_id", "mode", "forced", "retention", "execution", "selector", "context_tokens", "predicted_payload_bytes", "predicted_ttft_s", "predicted_compliance", "expected_quality", "link_bytes_per_s", "reason", "numerics", "position_unit")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    FORCED_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    SELECTOR_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_TTFT_S_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_COMPLIANCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_QUALITY_FIELD_NUMBER: _ClassVar[int]
    LINK_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    POSITION_UNIT_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    mode: _types_pb2.Mode
    forced: bool
    retention: float
    execution: _types_pb2.Execution
    selector: str
    context_tokens: int
    predicted_payload_bytes: int
    predicted_ttft_s: float
    predicted_compliance: float
    expected_quality: float
    link_bytes_per_s: float
    reason: str
    numerics: str
    position_unit: _types_pb2.PositionUnit
    def __init__(self, session_id: _Optional[str] = ..., mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., forced: _Optional[bool] = ..., retention: _Optional[float] = ..., execution: _Optional[_Union[_types_pb2.Execution, str]] = ..., selector: _Optional[str] = ..., context_tokens: _Optional[int] = ..., predicted_payload_bytes: _Optional[int] = ..., predicted_ttft_s: _Optional[float] = ..., predicted_compliance: _Optional[float] = ..., expected_quality: _Optional[float] = ..., link_bytes_per_s: _Optional[float] = ..., reason: _Optional[str] = ..., numerics: _Optional[str] = ..., position_unit: _Optional[_Union[_types_pb2.PositionUnit, str]] = ...) -> None: ...

class Token(_message.Message):
    __slots__ = ("text", "token_id", "index")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_id: int
    index: int
    def __init__(self, text: _Optional[str] = ..., token_id: _Optional[int] = ..., index: _Optional[int] = ...) -> None: ...

class Finished(_message.Message):
    __slots__ = ("finish_reason", "mode", "degradation", "bytes", "timing", "answer_tokens", "deadline_met", "kv_codecs", "context_tokens", "kept_tokens")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    DEGRADATION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MET_FIELD_NUMBER: _ClassVar[int]
    KV_CODECS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    finish_reason: _types_pb2.FinishReason
    mode: _types_pb2.Mode
    degradation: str
    bytes: _types_pb2.ByteCount
    timing: Timing
    answer_tokens: int
    deadline_met: bool
    kv_codecs: str
    context_tokens: int
    kept_tokens: int
    def __init__(self, finish_reason: _Optional[_Union[_types_pb2.FinishReason, str]] = ..., mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., degradation: _Optional[str] = ..., bytes: _Optional[_Union[_types_pb2.ByteCount, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., answer_tokens: _Optional[int] = ..., deadline_met: _Optional[bool] = ..., kv_codecs: _Optional[str] = ..., context_tokens: _Optional[int] = ..., kept_tokens: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("ttft_s", "total_s", "edge_prefill_s", "edge_score_s", "edge_encode_s", "transfer_s", "cloud_inject_s", "cloud_prefill_s", "cloud_queue_s", "deadline_s")
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    TOTAL_S_FIELD_NUMBER: _ClassVar[int]
    EDGE_PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    EDGE_SCORE_S_FIELD_NUMBER: _ClassVar[int]
    EDGE_ENCODE_S_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_S_FIELD_NUMBER: _ClassVar[int]
    CLOUD_INJECT_S_FIELD_NUMBER: _ClassVar[int]
    CLOUD_PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    CLOUD_QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    ttft_s: float
    total_s: float
    edge_prefill_s: float
    edge_score_s: float
    edge_encode_s: float
    transfer_s: float
    cloud_inject_s: float
    cloud_prefill_s: float
    cloud_queue_s: float
    deadline_s: float
    def __init__(self, ttft_s: _Optional[float] = ..., total_s: _Optional[float] = ..., edge_prefill_s: _Optional[float] = ..., edge_score_s: _Optional[float] = ..., edge_encode_s: _Optional[float] = ..., transfer_s: _Optional[float] = ..., cloud_inject_s: _Optional[float] = ..., cloud_prefill_s: _Optional[float] = ..., cloud_queue_s: _Optional[float] = ..., deadline_s: _Optional[float] = ...) -> None: ...

class PutContextRequest(_message.Message):
    __slots__ = ("context_text",)
    CONTEXT_TEXT_FIELD_NUMBER: _ClassVar[int]
    context_text: str
    def __init__(self, context_text: _Optional[str] = ...) -> None: ...

class PutContextResponse(_message.Message):
    __slots__ = ("context_hash", "context_tokens", "time_to_live_s")
    CONTEXT_HASH_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_LIVE_S_FIELD_NUMBER: _ClassVar[int]
    context_hash: bytes
    context_tokens: int
    time_to_live_s: float
    def __init__(self, context_hash: _Optional[bytes] = ..., context_tokens: _Optional[int] = ..., time_to_live_s: _Optional[float] = ...) -> None: ...
