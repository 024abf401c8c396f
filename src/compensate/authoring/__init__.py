"""How sagas are written: actions with undos, traced functions, a builder for graphs made at run time."""

from compensate.authoring import modules as modules  # says how `__main__` is called elsewhere
from compensate.authoring.actions import Action, action, action_constant, inject_error_action, no_op_undo
from compensate.authoring.builder import (
    DagBuilder,
    action_node,
    constant_node,
    output,
    param,
    saga_from_dag,
    subsaga_node,
)
from compensate.authoring.context import Ctx, Reader
from compensate.authoring.fan_out import fan_out
from compensate.authoring.options import ConfiguredAction
from compensate.authoring.registry import ActionRegistry
from compensate.authoring.sagas import Saga, saga
from compensate.authoring.tracing import constant

__all__ = [
    "Action",
    "ActionRegistry",
    "ConfiguredAction",
    "Ctx",
    "DagBuilder",
    "Reader",
    "Saga",
    "action",
    "action_constant",
    "action_node",
    "constant",
    "constant_node",
    "fan_out",
    "inject_error_action",
    "no_op_undo",
    "output",
    "param",
    "saga",
    "saga_from_dag",
    "subsaga_node",
]
