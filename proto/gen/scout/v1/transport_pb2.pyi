from scout.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class SessionRequest(_message.Message):
    __slots__ = ("open", "chunk", "switch", "finish", "cancel", "question_part")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    SWITCH_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    QUESTION_PART_FIELD_NUMBER: _ClassVar[int]
    open: Open
    chunk: Chunk
    switch: Switch
    finish: Finish
    cancel: Cancel
    question_part: QuestionPart
    def __init__(self, open: _Optional[_Union[Open, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., switch: _Optional[_Union[Switch, _Mapping]] = ..., finish: _Optional[_Union[Finish, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., question_part: _Optional[_Union[QuestionPart, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("accepted", "credit", "ack", "token", "done")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    accepted: Accepted
    credit: Credit
    ack: Ack
    token: AnswerToken
    done: Done
    def __init__(self, accepted: _Optional[_Union[Accepted, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., token: _Optional[_Union[AnswerToken, _Mapping]] = ..., done: _Optional[_Union[Done, _Mapping]] = ...) -> None: ...

class Open(_message.Message):
    __slots__ = ("session_id", "agent_id", "model_fingerprint", "context_hash", "context_tokens", "question", "mode", "retention", "execution", "sampling", "deadline_ms", "expected_payload_bytes", "round_trip_us", "offers", "position_unit", "context_characters", "question_bytes")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    MODEL_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_HASH_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_US_FIELD_NUMBER: _ClassVar[int]
    OFFERS_FIELD_NUMBER: _ClassVar[int]
    POSITION_UNIT_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_CHARACTERS_FIELD_NUMBER: _ClassVar[int]
    QUESTION_BYTES_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    agent_id: str
    model_fingerprint: str
    context_hash: bytes
    context_tokens: int
    question: str
    mode: _types_pb2.Mode
    retention: float
    execution: _types_pb2.Execution
    sampling: _types_pb2.Sampling
    deadline_ms: int
    expected_payload_bytes: int
    round_trip_us: int
    offers: _containers.RepeatedCompositeFieldContainer[Offer]
    position_unit: _types_pb2.PositionUnit
    context_characters: int
    question_bytes: int
    def __init__(self, session_id: _Optional[str] = ..., agent_id: _Optional[str] = ..., model_fingerprint: _Optional[str] = ..., context_hash: _Optional[bytes] = ..., context_tokens: _Optional[int] = ..., question: _Optional[str] = ..., mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., retention: _Optional[float] = ..., execution: _Optional[_Union[_types_pb2.Execution, str]] = ..., sampling: _Optional[_Union[_types_pb2.Sampling, _Mapping]] = ..., deadline_ms: _Optional[int] = ..., expected_payload_bytes: _Optional[int] = ..., round_trip_us: _Optional[int] = ..., offers: _Optional[_Iterable[_Union[Offer, _Mapping]]] = ..., position_unit: _Optional[_Union[_types_pb2.PositionUnit, str]] = ..., context_characters: _Optional[int] = ..., question_bytes: _Optional[int] = ...) -> None: ...

class QuestionPart(_message.Message):
    __slots__ = ("text",)
    TEXT_FIELD_NUMBER: _ClassVar[int]
    text: str
    def __init__(self, text: _Optional[str] = ...) -> None: ...

class Offer(_message.Message):
    __slots__ = ("mode", "retention", "payload_bytes", "expected_quality", "edge_s", "execution")
    MODE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_QUALITY_FIELD_NUMBER: _ClassVar[int]
    EDGE_S_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    mode: _types_pb2.Mode
    retention: float
    payload_bytes: int
    expected_quality: float
    edge_s: float
    execution: _types_pb2.Execution
    def __init__(self, mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., retention: _Optional[float] = ..., payload_bytes: _Optional[int] = ..., expected_quality: _Optional[float] = ..., edge_s: _Optional[float] = ..., execution: _Optional[_Union[_types_pb2.Execution, str]] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("offset", "data", "checksum")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CHECKSUM_FIELD_NUMBER: _ClassVar[int]
    offset: int
    data: bytes
    checksum: int
    def __init__(self, offset: _Optional[int] = ..., data: _Optional[bytes] = ..., checksum: _Optional[int] = ...) -> None: ...

class Switch(_message.Message):
    __slots__ = ("mode", "retention", "offset", "cause")
    MODE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    CAUSE_FIELD_NUMBER: _ClassVar[int]
    mode: _types_pb2.Mode
    retention: float
    offset: int
    cause: str
    def __init__(self, mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., retention: _Optional[float] = ..., offset: _Optional[int] = ..., cause: _Optional[str] = ...) -> None: ...

class Finish(_message.Message):
    __slots__ = ("payload_bytes", "digest")
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    payload_bytes: int
    digest: bytes
    def __init__(self, payload_bytes: _Optional[int] = ..., digest: _Optional[bytes] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Accepted(_message.Message):
    __slots__ = ("context_state", "resume_offset", "credit_bytes", "queue_s", "granted_bytes_per_s", "recommended_mode", "recommended_retention", "recommended_execution")
    CONTEXT_STATE_FIELD_NUMBER: _ClassVar[int]
    RESUME_OFFSET_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_MODE_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_RETENTION_FIELD_NUMBER: _ClassVar[int]
    RECOMMENDED_EXECUTION_FIELD_NUMBER: _ClassVar[int]
    context_state: _types_pb2.ContextState
    resume_offset: int
    credit_bytes: int
    queue_s: float
    granted_bytes_per_s: float
    recommended_mode: _types_pb2.Mode
    recommended_retention: float
    recommended_execution: _types_pb2.Execution
    def __init__(self, context_state: _Optional[_Union[_types_pb2.ContextState, str]] = ..., resume_offset: _Optional[int] = ..., credit_bytes: _Optional[int] = ..., queue_s: _Optional[float] = ..., granted_bytes_per_s: _Optional[float] = ..., recommended_mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., recommended_retention: _Optional[float] = ..., recommended_execution: _Optional[_Union[_types_pb2.Execution, str]] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("credit_bytes",)
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    credit_bytes: int
    def __init__(self, credit_bytes: _Optional[int] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("received_bytes", "arrival_us", "credit_bytes")
    RECEIVED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_US_FIELD_NUMBER: _ClassVar[int]
    CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    received_bytes: int
    arrival_us: int
    credit_bytes: int
    def __init__(self, received_bytes: _Optional[int] = ..., arrival_us: _Optional[int] = ..., credit_bytes: _Optional[int] = ...) -> None: ...

class AnswerToken(_message.Message):
    __slots__ = ("text", "token_id")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TOKEN_ID_FIELD_NUMBER: _ClassVar[int]
    text: str
    token_id: int
    def __init__(self, text: _Optional[str] = ..., token_id: _Optional[int] = ...) -> None: ...

class Done(_message.Message):
    __slots__ = ("finish_reason", "answer_tokens", "inject_s", "prefill_s", "queue_s", "decode_s", "uplink_bytes", "execution", "numerics", "degradation", "context_tokens", "kept_tokens")
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    ANSWER_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INJECT_S_FIELD_NUMBER: _ClassVar[int]
    PREFILL_S_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    DECODE_S_FIELD_NUMBER: _ClassVar[int]
    UPLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    NUMERICS_FIELD_NUMBER: _ClassVar[int]
    DEGRADATION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    KEPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    finish_reason: _types_pb2.FinishReason
    answer_tokens: int
    inject_s: float
    prefill_s: float
    queue_s: float
    decode_s: float
    uplink_bytes: int
    execution: _types_pb2.Execution
    numerics: str
    degradation: str
    context_tokens: int
    kept_tokens: int
    def __init__(self, finish_reason: _Optional[_Union[_types_pb2.FinishReason, str]] = ..., answer_tokens: _Optional[int] = ..., inject_s: _Optional[float] = ..., prefill_s: _Optional[float] = ..., queue_s: _Optional[float] = ..., decode_s: _Optional[float] = ..., uplink_bytes: _Optional[int] = ..., execution: _Optional[_Union[_types_pb2.Execution, str]] = ..., numerics: _Optional[str] = ..., degradation: _Optional[str] = ..., context_tokens: _Optional[int] = ..., kept_tokens: _Optional[int] = ...) -> None: ...
