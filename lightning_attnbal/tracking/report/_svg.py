"""SVG that can stand in a page with others, and is used with the keyboard."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal
from xml.etree import ElementTree as ET

_SVG = "http://www.w3.org/2000/svg"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_DROPPED = {"version", "aria-roledescription", "class", "pointer-events"}
_DECIMALS = re.compile(r"(\.\d\d)\d+")

ET.register_namespace("", _SVG)


def embed_svg(svg: str, name: str, label: str, hints: Literal["script", "title"]) -> str:
    """A drawing of `to_svg` as an element of a page.

    Names inside get a prefix of their own, so that two drawings do not share gradients. Marks that
    say what they show are images to a screen reader; with `hints` "script" one of them is reached
    with the Tab key and the page's script moves on from there, with "title" each carries a title,
    which a browser shows without any script.

    Args:
        svg: as `to_svg` wrote it.
        name: prefix, unlike that of the page's other drawings.
        label: what the drawing shows.
        hints: how marks say what they show.
    """
    root = ET.fromstring(svg)
    _, _, width, height = root.attrib["viewBox"].split()
    # vl-convert numbers them through the life of the process
    names = {e.attrib["id"]: f"{name}-{i}" for i, e in enumerate(root.iterfind(".//*[@id]"))}
    for element in list(root.iter()):
        _clean(element, names)
        if "aria-label" in element.attrib:
            _describe(element, hints)
    is_first = True
    for mark in root.iter():
        if mark.get("tabindex") and is_first:
            mark.set("tabindex", "0")
            is_first = False
    root.attrib |= {"role": "group", "aria-label": label, "width": width, "height": height}
    return ET.tostring(root, encoding="unicode")


def _clean(element: ET.Element, names: Mapping[str, str]) -> None:
    """Unique references, short numbers, nothing that no one reads."""
    is_sized = element.tag in {f"{{{_SVG}}}rect", f"{{{_SVG}}}image"}
    for key, value in list(element.attrib.items()):
        if key in _DROPPED or (key in {"width", "height"} and not is_sized):
            del element.attrib[key]
        elif key == "id":
            element.set(key, names[value])
        elif key in {"d", "transform"}:
            element.set(key, _DECIMALS.sub(r"\1", value))
        elif key in {"fill", "stroke", "clip-path"} and (found := _REFERENCE.fullmatch(value)):
            element.set(key, f"url(#{names[found[1]]})")


def _describe(element: ET.Element, hints: Literal["script", "title"]) -> None:
    is_mark = element.tag != f"{{{_SVG}}}g"
    if not is_mark:  # axes and legends: their text is read anyway
        del element.attrib["aria-label"]
        element.attrib.pop("role", None)
    elif hints == "script":
        element.attrib |= {"role": "img", "tabindex": "-1"}
    else:
        title = ET.Element(f"{{{_SVG}}}title")
        title.text = element.attrib["aria-label"]
        element.insert(0, title)
        element.attrib |= {"role": "img"}
