"""Every public name says what it is; those of the maths show it."""

import inspect
from importlib import import_module
from pkgutil import iter_modules, walk_packages

import pytest

import lightning_attnbal

PACKAGES = [
    module.name.removeprefix("lightning_attnbal.")
    for module in walk_packages(lightning_attnbal.__path__, "lightning_attnbal.")
    if module.ispkg
]
SHOWN = {"core", "allocate", "measure"}


def public_names(packages):
    """(package, name, value) of what is public and can carry a docstring."""
    for package in packages:
        module = import_module(f"lightning_attnbal.{package}")
        for name in getattr(module, "__all__", ()):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                yield package, name, value


@pytest.mark.parametrize("package", PACKAGES)
def test_package_lists_each_public_name_once(package):
    module = import_module(f"lightning_attnbal.{package}")
    assert len(module.__all__) == len(set(module.__all__))
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_package_modules_are_private(package):
    module = import_module(f"lightning_attnbal.{package}")
    modules = (m for m in iter_modules(module.__path__) if not m.ispkg)
    assert [m.name for m in modules if not m.name.startswith("_")] == []


def test_every_public_name_has_a_docstring_of_its_own():
    missing = [
        f"{package}.{name}"
        for package, name, value in public_names(PACKAGES)
        if not (value.__doc__ or "").strip() or value.__doc__.startswith(f"{name}(")
    ]
    assert missing == []


def test_every_public_name_of_the_maths_has_an_example():
    missing = [
        f"{package}.{name}"
        for package, name, value in public_names(sorted(SHOWN))
        if not _has_example(value)
    ]
    assert missing == []


def _has_example(value):
    """A doctest in its own docstring, or in a public method's; enums and errors need none."""
    if inspect.isclass(value) and (hasattr(value, "__members__") or issubclass(value, Exception)):
        return True
    members = vars(value).values() if inspect.isclass(value) else ()
    docs = [value.__doc__, *(m.__doc__ for m in members if inspect.isroutine(m))]
    return any(">>> " in (doc or "") for doc in docs)
