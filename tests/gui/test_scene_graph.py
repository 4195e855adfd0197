"""The renderer is chosen by what draws OpenGL here."""

import pytest
from PySide6.QtQuick import QQuickWindow
from PySide6.QtWidgets import QApplication

from runlane.gui import scene_graph
from runlane.gui.scene_graph import GPU, SOFTWARE, backend_for, choose_backend, gl_renderer, is_software


@pytest.mark.parametrize(
    ("renderer", "expected"),
    [
        ("llvmpipe (LLVM 15.0.6, 256 bits)", True),
        ("softpipe", True),
        ("Software Rasterizer", True),
        ("Google SwiftShader", True),
        ("", True),
        ("NVIDIA GeForce RTX 4090/PCIe/SSE2", False),
        ("Mesa Intel(R) UHD Graphics 620 (KBL GT2)", False),
        ("AMD Radeon Graphics (radeonsi, renoir, LLVM 15.0.7)", False),
    ],
)
def test_a_renderer_is_known_by_its_name(renderer: str, expected: bool) -> None:
    """Mesa's LLVM is also in the name of real GPUs."""
    assert is_software(renderer) is expected


def test_software_is_chosen_wherever_no_gpu_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the platform, by Mesa's own variable, by the renderer's name; else the GPU."""
    monkeypatch.setattr(scene_graph, "gl_renderer", lambda: "NVIDIA GeForce")
    assert backend_for("offscreen", {}) == SOFTWARE
    assert backend_for("xcb", {"LIBGL_ALWAYS_SOFTWARE": "1"}) == SOFTWARE
    assert backend_for("xcb", {"LIBGL_ALWAYS_SOFTWARE": "0"}) == GPU
    assert backend_for("wayland", {}) == GPU
    monkeypatch.setattr(scene_graph, "gl_renderer", lambda: "llvmpipe (LLVM 15)")
    assert backend_for("xcb", {}) == SOFTWARE


@pytest.mark.usefixtures("qapp")
def test_a_machine_without_opengl_is_asked_without_harm() -> None:
    """Offscreen there may be no OpenGL at all: its renderer has no name then, or a software one's."""
    if QApplication.platformName() == "offscreen":
        assert is_software(gl_renderer())


@pytest.mark.usefixtures("qapp")
def test_the_choice_is_what_qt_draws_with() -> None:
    """Offscreen: the software renderer."""
    assert choose_backend() == SOFTWARE
    assert QQuickWindow.sceneGraphBackend() == SOFTWARE
