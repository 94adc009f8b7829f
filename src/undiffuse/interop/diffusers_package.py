"""The optional package diffusers, and classes of ours as classes of it."""

from __future__ import annotations

from typing import Any

from undiffuse.errors import MachineError


def require_diffusers(what: str) -> Any:
    """The package diffusers; raises MachineError where it is not installed.

    Args:
        what: what needs it.
    """
    try:
        import diffusers
    except ImportError:
        raise MachineError(f"{what} needs that package; install it with: pip install 'undiffuse[diffusers]'") from None
    return diffusers


def as_diffusers_class(name: str, base: type[Any], mixin: type[Any]) -> type[Any]:
    """A class whose arguments diffusers saves as its configuration.

    Args:
        name: its name, by which diffusers loads it from the module of `base`.
        base: the class of ours.
        mixin: `ModelMixin` or `SchedulerMixin`.
    """
    from diffusers import ConfigMixin
    from diffusers.configuration_utils import register_to_config

    members = {"__init__": register_to_config(base.__init__), "__module__": base.__module__, "__doc__": base.__doc__}
    return type(name, (base, mixin, ConfigMixin), members)
