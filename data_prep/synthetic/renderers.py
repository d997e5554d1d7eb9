"""Choose what finds the seen triangles: OpenGL where it works, NumPy where it does not."""

from rich.console import Console

from data_prep.synthetic.raster import Renderer

RENDERERS = ("auto", "opengl", "numpy")


def open_renderer(name: str) -> Renderer:
    """Start a renderer in this process.

    Args:
        name: "opengl" or "numpy".

    Raises:
        ValueError: If the name is unknown, or OpenGL is not to be had here.
    """
    match name:
        case "opengl":
            try:
                from data_prep.synthetic.render_gl import OpenGLRenderer

                return OpenGLRenderer()
            except Exception as error:  # drivers and libraries fail in many ways
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(
                    f"renderer opengl does not start ({reason}); install the extra [synthetic] "
                    "and the system's libEGL, or use renderer numpy"
                ) from error
        case "numpy":
            from data_prep.synthetic.render_numpy import NumpyRenderer

            return NumpyRenderer()
        case _:
            raise ValueError(f"unknown renderer {name!r}, known: {', '.join(RENDERERS)}")


def resolve_renderer(name: str) -> str:
    """Turn "auto" into what works here, with a printed line where that is not OpenGL.

    Raises:
        ValueError: If the renderer that is asked for is unknown or does not start.
    """
    if name != "auto":
        open_renderer(name)
        return name
    try:
        open_renderer("opengl")
    except ValueError as error:
        Console(stderr=True, soft_wrap=True).print(f"drawing with NumPy: {error}", markup=False)
        return "numpy"
    return "opengl"
