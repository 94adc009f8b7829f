"""The page in a notebook: an anywidget whose trait `scene` is synchronised with the page."""

from __future__ import annotations

from typing import Any

from undiffuse.errors import MachineError
from undiffuse.explorer.page import data, read, scene_hash, script

_VIEW = """
function render({model, el}) {
  const root = document.createElement("div");
  root.style.height = model.get("height");
  // JupyterLab's arrow keys would move between cells; this attribute on the focused element prevents that.
  root.addEventListener("focusin", ({target}) => target.setAttribute("data-lm-suppress-shortcuts", "true"));
  el.append(root);
  const app = explorer().page(root, DATA, {silent: true, embed: true, source: explorer, hash: model.get("scene"),
    changed(hash) { model.set("scene", hash); model.save_changes(); }});
  model.on("change:scene", () => app.visit(model.get("scene")));
  return () => root.remove();
}
export default {render};
"""


def module() -> str:
    """The ES module that anywidget runs."""
    return f"{script()}\nconst DATA = {data()};\n{_VIEW}"


def widget(scene: str = "river", height: str = "640px") -> Any:
    """The explorer as a notebook widget; its attribute `scene` is the part of the address from # on and can be set.

    Args:
        scene: a view, a scene number, or the part of an address from # on.
        height: CSS height.

    Raises:
        MachineError: if anywidget is not installed.
        InputError: for an unknown scene.
    """
    try:
        import anywidget
        import traitlets
    except ImportError as error:
        raise MachineError("the explorer in a notebook needs anywidget; install undiffuse[notebook], or open "
                           "the page with explorer.write_page") from error

    class Explorer(anywidget.AnyWidget):  # type: ignore[misc, unused-ignore]
        _esm = module()
        _css = read("explorer.css").replace("body { margin: 0; }", "")
        scene = traitlets.Unicode().tag(sync=True)
        height = traitlets.Unicode().tag(sync=True)

    return Explorer(scene=scene_hash(scene), height=height)
