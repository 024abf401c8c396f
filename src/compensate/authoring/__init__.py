"""How sagas are written: actions with undos, traced functions, a builder for graphs made at run time."""

from compensate.authoring.actions import Action, action, action_constant, inject_error_action, no_op_undo
from compensate.authoring.context import Ctx, Reader
from compensate.authoring.fanning import fan_out
from compensate.authoring.placing import Placed
from compensate.authoring.registry import ActionRegistry
from compensate.authoring.sagas import Saga, saga, saga_from_dag
from compensate.authoring.tracing import constant

__all__ = [
    "Action",
    "ActionRegistry",
    "Ctx",
    "Placed",
    "Reader",
    "Saga",
    "action",
    "action_constant",
    "constant",
    "fan_out",
    "inject_error_action",
    "no_op_undo",
    "saga",
    "saga_from_dag",
]
