"""Several tasks on one encoder: batches, shared texts, heads."""

from functools import partial

import pytest
import torch

from recipes.text import ReviewsData, TextTasks, TextTasksData, make_synthetic, packaged_encoder


def texts(classes, seed=0, num_train=24):
    return ReviewsData(
        packaged_encoder(),
        num_train,
        num_val=8,
        num_test=10,
        max_tokens=12,
        batch_size=8,
        load=partial(make_synthetic, 60, classes, seed),
    )


@pytest.fixture(scope="module")
def shared():
    data = TextTasksData({"two": texts(2), "two again": texts(2)}, is_shared=True, mode="all")
    data.setup()
    return data


@pytest.fixture(scope="module")
def module():
    torch.manual_seed(0)
    return TextTasks(packaged_encoder(), {"two": 2, "two again": 2}).eval()


def test_each_task_has_a_loader_and_is_tested_in_turn():
    data = TextTasksData({"two": texts(2), "five": texts(5, seed=1)})
    data.setup()
    assert {t: len(loader) for t, loader in data.train_dataloader().items()} == {
        "two": 3,
        "five": 3,
    }
    tested = [tuple(batch) for batch, _, _ in iter(data.test_dataloader())]
    assert tested == [("two",)] * 2 + [("five",)] * 2
    assert data.class_counts == {"two": 2, "five": 5}


def test_tasks_of_the_same_texts_share_their_tensor(shared):
    for batch in shared.train_dataloader():
        assert batch["two"]["input_ids"] is batch["two again"]["input_ids"]
    for batch, _, _ in iter(shared.test_dataloader()):
        assert batch["two"]["input_ids"] is batch["two again"]["input_ids"]


def test_shared_texts_are_encoded_once_with_the_same_logits(shared, module):
    batch = next(iter(shared.train_dataloader()))
    calls = []
    handle = module.encoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        together = module(batch)
        apart = {task: module({task: rows})[task] for task, rows in batch.items()}
    handle.remove()
    assert len(calls) == 1 + 2
    torch.testing.assert_close(together, apart, rtol=0, atol=0)


def test_other_heads_get_no_gradient(module, shared):
    module.zero_grad(set_to_none=True)
    batch = next(iter(shared.train_dataloader()))
    module.losses({"two": batch["two"]})["two"].backward()
    assert module.heads["two"].weight.grad.any()
    assert module.heads["two again"].weight.grad is None


def test_texts_of_their_own_come_together_the_shorter_set_over_and_over():
    tasks = {"two": texts(2, num_train=8), "five": texts(5, seed=1)}
    data = TextTasksData(tasks, mode="all")
    data.setup()
    batches = [batch for batch, _, _ in iter(data.train_dataloader())]
    rows = [{task: len(part["labels"]) for task, part in batch.items()} for batch in batches]
    assert rows == [{"two": 8, "five": 8}] * 3
