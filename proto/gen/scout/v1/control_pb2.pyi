import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from scout.v1 import types_pb2 as _types_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AttachRequest(_message.Message):
    __slots__ = ("register", "heartbeat", "probe")
    REGISTER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    register: Register
    heartbeat: Heartbeat
    probe: Probe
    def __init__(self, register: _Optional[_Union[Register, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("registered", "heartbeat_ack", "probe_ack", "grant", "drain")
    REGISTERED_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_ACK_FIELD_NUMBER: _ClassVar[int]
    PROBE_ACK_FIELD_NUMBER: _ClassVar[int]
    GRANT_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    registered: Registered
    heartbeat_ack: HeartbeatAck
    probe_ack: ProbeAck
    grant: Grant
    drain: DrainNotice
    def __init__(self, registered: _Optional[_Union[Registered, _Mapping]] = ..., heartbeat_ack: _Optional[_Union[HeartbeatAck, _Mapping]] = ..., probe_ack: _Optional[_Union[ProbeAck, _Mapping]] = ..., grant: _Optional[_Union[Grant, _Mapping]] = ..., drain: _Optional[_Union[DrainNotice, _Mapping]] = ...) -> None: ...

class Register(_message.Message):
    __slots__ = ("agent_id", "version", "models", "modes", "uplink_group")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    UPLINK_GROUP_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    version: str
    models: _containers.RepeatedCompositeFieldContainer[_types_pb2.Model]
    modes: _containers.RepeatedScalarFieldContainer[_types_pb2.Mode]
    uplink_group: str
    def __init__(self, agent_id: _Optional[str] = ..., version: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_types_pb2.Model, _Mapping]]] = ..., modes: _Optional[_Iterable[_Union[_types_pb2.Mode, str]]] = ..., uplink_group: _Optional[str] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence", "requests_in_flight", "goodput_bytes_per_s", "round_trip_us", "last_mode")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    GOODPUT_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_US_FIELD_NUMBER: _ClassVar[int]
    LAST_MODE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    requests_in_flight: int
    goodput_bytes_per_s: float
    round_trip_us: int
    last_mode: _types_pb2.Mode
    def __init__(self, sequence: _Optional[int] = ..., requests_in_flight: _Optional[int] = ..., goodput_bytes_per_s: _Optional[float] = ..., round_trip_us: _Optional[int] = ..., last_mode: _Optional[_Union[_types_pb2.Mode, str]] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("sequence", "padding")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    padding: bytes
    def __init__(self, sequence: _Optional[int] = ..., padding: _Optional[bytes] = ...) -> None: ...

class Registered(_message.Message):
    __slots__ = ("server_id", "version", "model", "heartbeat_interval", "initial_credit_bytes", "costs", "uplink_scheduled", "largest_message_bytes")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    INITIAL_CREDIT_BYTES_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    UPLINK_SCHEDULED_FIELD_NUMBER: _ClassVar[int]
    LARGEST_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    version: str
    model: _types_pb2.Model
    heartbeat_interval: _duration_pb2.Duration
    initial_credit_bytes: int
    costs: _containers.RepeatedCompositeFieldContainer[_types_pb2.StageCost]
    uplink_scheduled: bool
    largest_message_bytes: int
    def __init__(self, server_id: _Optional[str] = ..., version: _Optional[str] = ..., model: _Optional[_Union[_types_pb2.Model, _Mapping]] = ..., heartbeat_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., initial_credit_bytes: _Optional[int] = ..., costs: _Optional[_Iterable[_Union[_types_pb2.StageCost, _Mapping]]] = ..., uplink_scheduled: _Optional[bool] = ..., largest_message_bytes: _Optional[int] = ...) -> None: ...

class HeartbeatAck(_message.Message):
    __slots__ = ("sequence", "queue_s", "costs")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    COSTS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    queue_s: float
    costs: _containers.RepeatedCompositeFieldContainer[_types_pb2.StageCost]
    def __init__(self, sequence: _Optional[int] = ..., queue_s: _Optional[float] = ..., costs: _Optional[_Iterable[_Union[_types_pb2.StageCost, _Mapping]]] = ...) -> None: ...

class ProbeAck(_message.Message):
    __slots__ = ("sequence", "arrival_us")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ARRIVAL_US_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    arrival_us: int
    def __init__(self, sequence: _Optional[int] = ..., arrival_us: _Optional[int] = ...) -> None: ...

class Grant(_message.Message):
    __slots__ = ("rate_bytes_per_s", "lease", "mode", "session_id", "retention")
    RATE_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    rate_bytes_per_s: float
    lease: _duration_pb2.Duration
    mode: _types_pb2.Mode
    session_id: str
    retention: float
    def __init__(self, rate_bytes_per_s: _Optional[float] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., session_id: _Optional[str] = ..., retention: _Optional[float] = ...) -> None: ...

class DrainNotice(_message.Message):
    __slots__ = ("reason", "retry_after")
    REASON_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    reason: str
    retry_after: _duration_pb2.Duration
    def __init__(self, reason: _Optional[str] = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GetStatusResponse(_message.Message):
    __slots__ = ("edge", "cloud")
    EDGE_FIELD_NUMBER: _ClassVar[int]
    CLOUD_FIELD_NUMBER: _ClassVar[int]
    edge: EdgeStatus
    cloud: CloudStatus
    def __init__(self, edge: _Optional[_Union[EdgeStatus, _Mapping]] = ..., cloud: _Optional[_Union[CloudStatus, _Mapping]] = ...) -> None: ...

class EdgeStatus(_message.Message):
    __slots__ = ("agent_id", "version", "models", "cloud_address", "attached", "link", "last_requests", "requests_in_flight", "profile")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CLOUD_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    ATTACHED_FIELD_NUMBER: _ClassVar[int]
    LINK_FIELD_NUMBER: _ClassVar[int]
    LAST_REQUESTS_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    version: str
    models: _containers.RepeatedCompositeFieldContainer[_types_pb2.Model]
    cloud_address: str
    attached: bool
    link: LinkStatus
    last_requests: _containers.RepeatedCompositeFieldContainer[RequestSummary]
    requests_in_flight: int
    profile: str
    def __init__(self, agent_id: _Optional[str] = ..., version: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_types_pb2.Model, _Mapping]]] = ..., cloud_address: _Optional[str] = ..., attached: _Optional[bool] = ..., link: _Optional[_Union[LinkStatus, _Mapping]] = ..., last_requests: _Optional[_Iterable[_Union[RequestSummary, _Mapping]]] = ..., requests_in_flight: _Optional[int] = ..., profile: _Optional[str] = ...) -> None: ...

class LinkStatus(_message.Message):
    __slots__ = ("goodput_bytes_per_s", "goodput_low_bytes_per_s", "round_trip_s", "sample_age_s")
    GOODPUT_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    GOODPUT_LOW_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    ROUND_TRIP_S_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_AGE_S_FIELD_NUMBER: _ClassVar[int]
    goodput_bytes_per_s: float
    goodput_low_bytes_per_s: float
    round_trip_s: float
    sample_age_s: float
    def __init__(self, goodput_bytes_per_s: _Optional[float] = ..., goodput_low_bytes_per_s: _Optional[float] = ..., round_trip_s: _Optional[float] = ..., sample_age_s: _Optional[float] = ...) -> None: ...

class RequestSummary(_message.Message):
    __slots__ = ("session_id", "mode", "retention", "payload_bytes", "ttft_s", "deadline_s", "outcome")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RETENTION_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_FIELD_NUMBER: _ClassVar[int]
    TTFT_S_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    mode: _types_pb2.Mode
    retention: float
    payload_bytes: int
    ttft_s: float
    deadline_s: float
    outcome: str
    def __init__(self, session_id: _Optional[str] = ..., mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., retention: _Optional[float] = ..., payload_bytes: _Optional[int] = ..., ttft_s: _Optional[float] = ..., deadline_s: _Optional[float] = ..., outcome: _Optional[str] = ...) -> None: ...

class CloudStatus(_message.Message):
    __slots__ = ("server_id", "version", "model", "agents", "contexts", "context_bytes", "context_budget_bytes", "sessions", "queue_s", "draining", "uplinks")
    SERVER_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXTS_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_BYTES_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_BUDGET_BYTES_FIELD_NUMBER: _ClassVar[int]
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_S_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    UPLINKS_FIELD_NUMBER: _ClassVar[int]
    server_id: str
    version: str
    model: _types_pb2.Model
    agents: _containers.RepeatedCompositeFieldContainer[AgentStatus]
    contexts: int
    context_bytes: int
    context_budget_bytes: int
    sessions: int
    queue_s: float
    draining: bool
    uplinks: _containers.RepeatedCompositeFieldContainer[UplinkStatus]
    def __init__(self, server_id: _Optional[str] = ..., version: _Optional[str] = ..., model: _Optional[_Union[_types_pb2.Model, _Mapping]] = ..., agents: _Optional[_Iterable[_Union[AgentStatus, _Mapping]]] = ..., contexts: _Optional[int] = ..., context_bytes: _Optional[int] = ..., context_budget_bytes: _Optional[int] = ..., sessions: _Optional[int] = ..., queue_s: _Optional[float] = ..., draining: _Optional[bool] = ..., uplinks: _Optional[_Iterable[_Union[UplinkStatus, _Mapping]]] = ...) -> None: ...

class UplinkStatus(_message.Message):
    __slots__ = ("group", "capacity_bytes_per_s", "granted_bytes_per_s", "requests", "late")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    CAPACITY_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    group: str
    capacity_bytes_per_s: float
    granted_bytes_per_s: float
    requests: int
    late: int
    def __init__(self, group: _Optional[str] = ..., capacity_bytes_per_s: _Optional[float] = ..., granted_bytes_per_s: _Optional[float] = ..., requests: _Optional[int] = ..., late: _Optional[int] = ...) -> None: ...

class AgentStatus(_message.Message):
    __slots__ = ("agent_id", "heartbeat_age_s", "goodput_bytes_per_s", "last_mode", "requests_in_flight", "modes", "uplink_group", "granted_bytes_per_s", "granted_mode")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_AGE_S_FIELD_NUMBER: _ClassVar[int]
    GOODPUT_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    LAST_MODE_FIELD_NUMBER: _ClassVar[int]
    REQUESTS_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    MODES_FIELD_NUMBER: _ClassVar[int]
    UPLINK_GROUP_FIELD_NUMBER: _ClassVar[int]
    GRANTED_BYTES_PER_S_FIELD_NUMBER: _ClassVar[int]
    GRANTED_MODE_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    heartbeat_age_s: float
    goodput_bytes_per_s: float
    last_mode: _types_pb2.Mode
    requests_in_flight: int
    modes: _containers.RepeatedScalarFieldContainer[_types_pb2.Mode]
    uplink_group: str
    granted_bytes_per_s: float
    granted_mode: _types_pb2.Mode
    def __init__(self, agent_id: _Optional[str] = ..., heartbeat_age_s: _Optional[float] = ..., goodput_bytes_per_s: _Optional[float] = ..., last_mode: _Optional[_Union[_types_pb2.Mode, str]] = ..., requests_in_flight: _Optional[int] = ..., modes: _Optional[_Iterable[_Union[_types_pb2.Mode, str]]] = ..., uplink_group: _Optional[str] = ..., granted_bytes_per_s: _Optional[float] = ..., granted_mode: _Optional[_Union[_types_pb2.Mode, str]] = ...) -> None: ...
