"""The mode policies, one file each, and their names."""

from __future__ import annotations

from scout_core.control.policies.chance_constraint import ChanceConstraintPolicy
from scout_core.control.policies.fixed import FixedPolicy
from scout_core.control.policies.oracle import OraclePolicy
from scout_core.control.policies.robust_mpc import RobustMpcPolicy
from scout_core.control.policies.throughput import ThroughputPolicy
from scout_core.control.policies.tokens import TokensPolicy
from scout_core.control.policy import Policy
from scout_core.errors import SettingsError
from scout_core.modes import Mode

__all__ = [
    "POLICY_NAMES",
    "ChanceConstraintPolicy",
    "FixedPolicy",
    "OraclePolicy",
    "RobustMpcPolicy",
    "ThroughputPolicy",
    "TokensPolicy",
    "policy_named",
]

FIXED_PREFIX = "fixed:"
POLICY_NAMES = (
    *(f"{FIXED_PREFIX}{mode.value}" for mode in Mode),
    "tokens",
    "throughput",
    "robust_mpc",
    "ours",
)
"""Names that settings accept; the oracle needs the true link and exists in studies only."""


def policy_named(name: str) -> Policy:
    """The policy of a name in ``POLICY_NAMES``.

    Raises:
        SettingsError: no such policy.
    """
    if name.startswith(FIXED_PREFIX) and name in POLICY_NAMES:
        return FixedPolicy(Mode(name.removeprefix(FIXED_PREFIX)))
    match name:
        case "tokens":
            return TokensPolicy()
        case "throughput":
            return ThroughputPolicy()
        case "robust_mpc":
            return RobustMpcPolicy()
        case "ours":
            return ChanceConstraintPolicy()
        case _:
            raise SettingsError(f"No policy {name!r}; choose one of {', '.join(POLICY_NAMES)}.")
