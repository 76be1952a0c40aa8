"""Denoising diffusion where every formula is proved on the page that explains it.

What is public stands in `__init__.pyi`, in reading order. A module is imported when one of
its names is first asked for: so the command answers `--help` without waiting for torch."""

__version__ = "0.1.0"

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
