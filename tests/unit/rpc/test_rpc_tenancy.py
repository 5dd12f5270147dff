"""The tenant comes from call metadata, is checked, and has a default."""

from __future__ import annotations

from typing import Any

import pytest

from scout_core.errors import RequestError
from scout_core.modes import TenantId
from scout_core.rpc.tenancy import DEFAULT_TENANT, TENANT_KEY, tenant_metadata, tenant_of


class CallMetadata:
    """The part of a call's context that names the tenant."""

    def __init__(self, *metadata: tuple[str, Any]) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, Any], ...] | None:
        return self._metadata or None


def tenant(*metadata: tuple[str, Any]) -> TenantId:
    context: Any = CallMetadata(*metadata)
    return tenant_of(context)


def test_call_without_the_header_belongs_to_the_default_tenant() -> None:
    assert tenant() == DEFAULT_TENANT
    assert tenant(("user-agent", "x")) == DEFAULT_TENANT


@pytest.mark.parametrize("name", ["a", "team-1", "a.b_c", "x" * 64])
def test_what_one_end_writes_the_other_reads(name: str) -> None:
    assert tenant(*tenant_metadata(TenantId(name))) == name


@pytest.mark.parametrize("value", ["", "a b", "a/b", "x" * 65, "naïve", "a\n", b"bytes"])
def test_malformed_tenant_is_refused(value: object) -> None:
    with pytest.raises(RequestError, match=TENANT_KEY):
        tenant((TENANT_KEY, value))
