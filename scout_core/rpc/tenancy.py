"""Who a call belongs to: the tenant, from call metadata.

Tenants separate what is stored; they are no proof of identity. Where agents are not trusted, run
mutual TLS and let a proxy set the header.
"""

from __future__ import annotations

import re
from typing import Any, Final

import grpc

from scout_core.errors import RequestError
from scout_core.modes import TenantId

TENANT_KEY: Final = "scout-tenant"
DEFAULT_TENANT: Final = TenantId("default")
TENANT: Final = re.compile(r"^[A-Za-z0-9_.-]{1,64}$")


def tenant_of(context: grpc.aio.ServicerContext[Any, Any]) -> TenantId:
    """The tenant of a call.

    Raises:
        RequestError: the header is malformed.
    """
    for key, value in context.invocation_metadata() or ():
        if key == TENANT_KEY:
            if not isinstance(value, str) or not TENANT.fullmatch(value):
                raise RequestError(
                    f"{TENANT_KEY} must be 1 to 64 characters of [A-Za-z0-9_.-]; fix it."
                )
            return TenantId(value)
    return DEFAULT_TENANT


def tenant_metadata(tenant: TenantId) -> tuple[tuple[str, str], ...]:
    """Call metadata that names the tenant."""
    return ((TENANT_KEY, tenant),)
