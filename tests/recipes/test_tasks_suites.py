"""What the comparison of several tasks trains, tunes and tests on."""

from recipes.benchmarks.tasks.suites import split_three_ways

# A file sorted by class, as BANKING77's is
CLASSES = [k // 40 for k in range(400)]
ITEMS = ["train"] * 400 + ["test"] * 400


def test_rates_are_chosen_on_rows_that_are_neither_trained_nor_tested_on():
    rows = split_three_ways(ITEMS, (200, 100, 100))
    assert [len(rows[name]) for name in ("train", "val", "test")] == [200, 100, 100]
    assert len({row for part in rows.values() for row in part}) == 400
    assert {ITEMS[row] for row in (*rows["train"], *rows["val"])} == {"train"}
    assert {ITEMS[row] for row in rows["test"]} == {"test"}


def test_a_part_of_a_sorted_file_has_every_class():
    rows = split_three_ways(ITEMS, (200, 100, 100))
    for part in rows.values():
        assert {CLASSES[row % 400] for row in part} == set(CLASSES)


def test_every_call_draws_the_same_rows():
    first, again = (split_three_ways(ITEMS, (200, 100, 100)) for _ in range(2))
    assert all((first[name] == again[name]).all() for name in first)
