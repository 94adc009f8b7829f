"""The page in a notebook: the same script as an anywidget, whose scene is a trait that both sides can set."""

from __future__ import annotations

from typing import Any

from undiffuse.errors import MachineError
from undiffuse.explorer.page import data, read, scene_hash, script

_VIEW = """
function render({model, el}) {
  const root = document.createElement("div");
  root.style.height = model.get("height");
  // JupyterLab's arrow keys would move between cells: they leave alone what has this attribute itself.
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
    """The explorer as a widget; `.scene` is the part of its address from # on, and can be set.

    scene: a view, a scene's number, or such a part. Raises MachineError where anywidget is not installed.
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
