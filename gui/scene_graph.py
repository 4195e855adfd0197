"""Which renderer Qt Quick draws with: the GPU where there is one, else Qt's own software renderer.

Qt Quick over an OpenGL that is itself software (llvmpipe) shows 1080p at 8 to 39 frames a second and takes a core for
it; the software renderer holds 60 on a fifth of one.
"""

import os
from collections.abc import Mapping

from PySide6.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext
from PySide6.QtQuick import QQuickWindow, QSGRendererInterface

SOFTWARE = "software"
GPU = "gpu"
_SOFTWARE_RENDERERS = ("llvmpipe", "softpipe", "swrast", "software rasterizer", "swiftshader", "basic render driver")
_PLATFORMS_WITHOUT_GPU = ("offscreen", "minimal", "linuxfb", "vnc")
_GL_RENDERER = 0x1F01


def is_software(renderer: str) -> bool:
    """Whether an OpenGL renderer string names no GPU."""
    name = renderer.lower()
    return not name or any(known in name for known in _SOFTWARE_RENDERERS)


def gl_renderer() -> str:
    """What OpenGL calls its renderer; empty where there is none. Needs a QGuiApplication."""
    context = QOpenGLContext()
    surface = QOffscreenSurface()
    surface.create()
    if not context.create() or not surface.isValid() or not context.makeCurrent(surface):
        return ""
    try:
        return str(context.functions().glGetString(_GL_RENDERER) or "")
    finally:
        context.doneCurrent()
        surface.destroy()


def backend_for(platform: str, environment: Mapping[str, str]) -> str:
    """`software` or `gpu`, on a Qt platform and with these variables."""
    if platform in _PLATFORMS_WITHOUT_GPU or environment.get("LIBGL_ALWAYS_SOFTWARE", "0") not in ("", "0", "false"):
        return SOFTWARE
    return SOFTWARE if is_software(gl_renderer()) else GPU


def choose_backend() -> str:
    """Set Qt Quick's renderer and say which. To be called before the first Qt Quick window, after the application."""
    chosen = backend_for(QGuiApplication.platformName(), os.environ)
    if chosen == SOFTWARE:
        QQuickWindow.setGraphicsApi(QSGRendererInterface.GraphicsApi.Software)
    return chosen
