from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Mode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODE_UNSPECIFIED: _ClassVar[Mode]
    MODE_AUTO: _ClassVar[Mode]
    MODE_KV_BF16: _ClassVar[Mode]
    MODE_KV_INT8: _ClassVar[Mode]
    MODE_KV_INT4: _ClassVar[Mode]
    MODE_KV_SELECT: _ClassVar[Mode]
    MODE_SCOUT: _ClassVar[Mode]

class Execution(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXECUTION_UNSPECIFIED: _ClassVar[Execution]
    EXECUTION_EVICT: _ClassVar[Execution]
    EXECUTION_SPARSE: _ClassVar[Execution]

class PositionUnit(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    POSITION_UNIT_UNSPECIFIED: _ClassVar[PositionUnit]
    POSITION_UNIT_CLOUD_TOKENS: _ClassVar[PositionUnit]
    POSITION_UNIT_CHARACTERS: _ClassVar[PositionUnit]

class ContextState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CONTEXT_STATE_UNSPECIFIED: _ClassVar[ContextState]
    CONTEXT_STATE_ABSENT: _ClassVar[ContextState]
    CONTEXT_STATE_TOKENS: _ClassVar[ContextState]
    CONTEXT_STATE_KV: _ClassVar[ContextState]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_END_OF_TEXT: _ClassVar[FinishReason]
    FINISH_REASON_MAX_TOKENS: _ClassVar[FinishReason]
MODE_UNSPECIFIED: Mode
MODE_AUTO: Mode
MODE_KV_BF16: Mode
MODE_KV_INT8: Mode
MODE_KV_INT4: Mode
MODE_KV_SELECT: Mode
MODE_SCOUT: Mode
EXECUTION_UNSPECIFIED: Execution
EXECUTION_EVICT: Execution
EXECUTION_SPARSE: Execution
POSITION_UNIT_UNSPECIFIED: PositionUnit
POSITION_UNIT_CLOUD_TOKENS: PositionUnit
POSITION_UNIT_CHARACTERS: PositionUnit
CONTEXT_STATE_UNSPECIFIED: ContextState
CONTEXT_STATE_ABSENT: ContextState
CONTEXT_STATE_TOKENS: ContextState
CONTEXT_STATE_KV: ContextState
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_END_OF_TEXT: FinishReason
FINISH_REASON_MAX_TOKENS: FinishReason

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_p", "seed", "max_tokens")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_p: float
    seed: int
    max_tokens: int
    def __init__(self, temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., max_tokens: _Optional[int] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "fingerprint", "tokenizer_fingerprint", "layers", "kv_heads", "head_dim", "vocabulary", "context_limit_tokens", "compute_dtype", "transform")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TOKENIZER_FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    KV_HEADS_FIELD_NUMBER: _ClassVar[int]
    HEAD_DIM_FIELD_NUMBER: _ClassVar[int]
    VOCABULARY_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_LIMIT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_DTYPE_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    tokenizer_fingerprint: str
    layers: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context_limit_tokens: int
    compute_dtype: str
    transform: str
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., tokenizer_fingerprint: _Optional[str] = ..., layers: _Optional[int] = ..., kv_heads: _Optional[int] = ..., head_dim: _Optional[int] = ..., vocabulary: _Optional[int] = ..., context_limit_tokens: _Optional[int] = ..., compute_dtype: _Optional[str] = ..., transform: _Optional[str] = ...) -> None: ...

class StageCost(_message.Message):
    __slots__ = ("stage", "base_s", "per_token_s", "samples")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    BASE_S_FIELD_NUMBER: _ClassVar[int]
    PER_TOKEN_S_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    stage: str
    base_s: float
    per_token_s: float
    samples: int
    def __init__(self, stage: _Optional[str] = ..., base_s: _Optional[float] = ..., per_token_s: _Optional[float] = ..., samples: _Optional[int] = ...) -> None: ...

class ByteCount(_message.Message):
    __slots__ = ("uplink_bytes", "downlink_bytes", "payload_bytes", "indices_bytes", "kv_bf16_bytes")
    UPLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    DOWNLINK_BYTES_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    INDICES_BYTES_FIELD_NUMBER: _ClassVar[int]
    KV_BF16_BYTES_FIELD_NUMBER: _ClassVar[int]
    uplink_bytes: int
    downlink_bytes: int
    payload_bytes: int
    indices_bytes: int
    kv_bf16_bytes: int
    def __init__(self, uplink_bytes: _Optional[int] = ..., downlink_bytes: _Optional[int] = ..., payload_bytes: _Optional[int] = ..., indices_bytes: _Optional[int] = ..., kv_bf16_bytes: _Optional[int] = ...) -> None: ...
