"""A plan in effect: what moves, what must not, and that everything can be taken back."""

import pytest
import torch
from torch import nn

from lightning_attnbal.apply import PlanApplier
from lightning_attnbal.core import Plan, UnsupportedModelError
from tests.unit.apply.models import moved, num_hooks, split, stack, state, step

BLOCKS = ("0", "1", "2", "3")
FREEZE_TWO = Plan({"0": "frozen", "1": "frozen", "2": "full", "3": "full", "rest": "full"})
FULL = Plan(dict.fromkeys((*BLOCKS, "rest"), "full"))
CUT = Plan({"0": "full", "1": "detached", "2": "local", "3": "full", "rest": "full"})

OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.1, momentum=0.9, weight_decay=0.1),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.1, weight_decay=0.1),
}


def make(**options):
    model = stack()
    return model, PlanApplier(model, split(model, *BLOCKS), **options)


def everything(model):
    return (
        [p.requires_grad for p in model.parameters()],
        [m.training for m in model.modules()],
        num_hooks(model),
    )


@pytest.mark.parametrize("set_to_none", [True, False])
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_frozen_weights_and_statistics_keep_every_bit_while_the_others_move(optimizer, set_to_none):
    model, applier = make()
    optimizer = optimizer(model.parameters())
    step(model, optimizer)  # leaves momentum and stale gradients behind
    before = state(model)
    applier.apply(FREEZE_TWO, [optimizer])
    for _ in range(3):
        step(model, optimizer, set_to_none=set_to_none)
    assert {name[0] for name in moved(before, model)} == {"2", "3"}
    trained = {name for name, _ in model.named_parameters() if name[0] in "23"}
    assert trained <= moved(before, model)


def test_thawed_weights_move_again():
    model, applier = make()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    applier.apply(FREEZE_TWO)
    applier.apply(FULL)
    before = state(model)
    step(model, optimizer)
    assert {name for name, _ in model.named_parameters()} <= moved(before, model)


def test_frozen_units_have_dropout_off_and_trained_ones_keep_it():
    model, applier = make()
    applier.apply(FREEZE_TWO)
    flags = [[m.training for m in block.modules()] for block in model]
    assert flags == [[False] * 4, [False] * 4, [True] * 4, [True]]


def test_refresh_repairs_what_model_train_did():
    model, applier = make()
    applier.apply(FREEZE_TWO)
    quiet = everything(model)
    model.train()
    applier.refresh()
    assert everything(model)[:1] == quiet[:1]
    assert [m.training for m in model[0].modules()] == [False] * 4


def test_a_module_that_was_in_eval_mode_before_stays_so_after_a_thaw():
    model = stack()
    model[0].norm.eval()
    applier = PlanApplier(model, split(model, *BLOCKS))
    applier.apply(FREEZE_TWO)
    applier.apply(FULL)
    assert [m.training for m in model[0].modules()] == [True, True, False, True]


@pytest.mark.parametrize("plan", [FREEZE_TWO, CUT, FULL], ids=["freeze", "cut", "full"])
def test_applying_twice_is_applying_once(plan):
    model, applier = make()
    applier.apply(plan)
    once = everything(model)
    applier.apply(plan)
    assert everything(model) == once
    assert applier.current == plan


@pytest.mark.parametrize("plan", [FREEZE_TWO, CUT], ids=["freeze", "cut"])
def test_undo_restores_flags_modes_and_hooks(plan):
    model = stack()
    model[1].linear.weight.requires_grad_(False)
    model[2].dropout.eval()
    model[0].register_forward_pre_hook(lambda module, args: None)
    before = everything(model)
    applier = PlanApplier(model, split(model, *BLOCKS))
    applier.apply(plan)
    assert everything(model) != before
    applier.undo()
    applier.undo()
    assert everything(model) == before
    assert applier.current is None


def interrupted(applier):
    with applier:
        applier.apply(CUT)
        raise KeyboardInterrupt("Ctrl-C")


def test_leaving_the_context_undoes_also_after_an_exception():
    model, applier = make()
    before = everything(model)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        interrupted(applier)
    assert everything(model) == before


def test_a_full_plan_changes_nothing():
    model, applier = make()
    before = everything(model)
    applier.apply(FULL)
    assert everything(model) == before


def test_what_the_user_froze_is_never_trained():
    model = stack()
    model[2].linear.weight.requires_grad_(False)
    applier = PlanApplier(model, split(model, *BLOCKS))
    applier.apply(FREEZE_TWO)
    applier.apply(FULL)
    assert not model[2].linear.weight.requires_grad
    assert all(p is not model[2].linear.weight for p in applier.trained_parameters())


def test_parameters_are_told_apart_by_identity_not_by_value():
    model = stack()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    applier = PlanApplier(model, split(model, *BLOCKS))
    applier.apply(FREEZE_TWO)
    expected = [*model[2].parameters(), *model[3].parameters()]
    assert [id(p) for p in applier.trained_parameters()] == [id(p) for p in expected]
    assert next(p for p in model.parameters() if p.requires_grad) is expected[0]


def test_kept_moments_stay_untouched():
    model, applier = make()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    step(model, optimizer)
    frozen = model[0].linear.weight
    before = {key: value.clone() for key, value in optimizer.state[frozen].items()}
    applier.apply(FREEZE_TWO, [optimizer])
    step(model, optimizer)
    assert {key: value.tolist() for key, value in before.items()} == {
        key: value.tolist() for key, value in optimizer.state[frozen].items()
    }


def test_dropped_moments_are_gone_for_frozen_parameters_only():
    model, applier = make(moments="drop")
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    step(model, optimizer)
    applier.apply(FREEZE_TWO, [optimizer])
    kept = [*model[2].parameters(), *model[3].parameters()]
    assert [id(p) for p in optimizer.state] == [id(p) for p in kept]


INVALID = {
    "unknown and missing": (
        Plan({"0": "frozen", "1": "full", "2": "full", "3": "full", "head": "full"}),
        ValueError,
        "names unknown units: 'head'; and lacks: 'rest'",
    ),
    "nothing trained": (
        Plan({**FULL.levels, **dict.fromkeys(BLOCKS, "frozen")}),
        ValueError,
        "Expected `plan` to train at least one trainable parameter",
    ),
    "lora": (
        Plan({**FREEZE_TWO.levels, "1": "lora4"}),
        UnsupportedModelError,
        "Expected the level of unit '1' to be one of cached, frozen, .*, full, but got lora4",
    ),
    "cached": (
        Plan({**FREEZE_TWO.levels, "0": "cached"}),
        UnsupportedModelError,
        "Expected a `cache` for a plan that caches '0', but got None",
    ),
    "not detachable": (
        Plan({**FREEZE_TWO.levels, "3": "detached"}),
        UnsupportedModelError,
        "Cannot detach unit '3': no skip path leads from its first input to its output",
    ),
}


@pytest.mark.parametrize(("plan", "error", "match"), INVALID.values(), ids=INVALID)
def test_a_refused_plan_leaves_the_model_as_it_was(plan, error, match):
    model, applier = make()
    applier.apply(CUT)
    before = everything(model)
    with pytest.raises(error, match=match):
        applier.apply(plan)
    assert everything(model) == before
    assert applier.current == CUT


def test_wrong_arguments_are_refused():
    model = stack()
    units = split(model, *BLOCKS)
    with pytest.raises(ValueError, match="Expected `moments` to be one of 'keep', 'drop'"):
        PlanApplier(model, units, moments="reset")
    with pytest.raises(ValueError, match="Expected `units` to have unique names"):
        PlanApplier(model, [units[0], units[0]])
    with pytest.raises(ValueError, match="parameters of unit '3' to be in the model, but got '3"):
        PlanApplier(model[:3], units[3:4])
    with pytest.raises(ValueError, match="modules of unit '0' to be in the model, but got '0'"):
        PlanApplier(nn.Linear(2, 2), [type(units[0])("0", 0, units[0].kind, ("0",), (), 0)])
