"""Makes ``import torchvision`` work beside a torch that its compiled operators were not built for.

With the CPU build of torch, PyPI's torchvision cannot load its compiled operators, and importing it (hence
timm and torchmetrics) stops with ``operator torchvision::nms does not exist``: it describes two operators
that nobody declared. Declaring their schemas is enough. They stay without an implementation; no model of
galaxies uses them.
"""

import torch

__all__ = ["declare_missing_operators"]

_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_declared: list[torch.library.Library] = []  # declarations live only as long as their Library object


def declare_missing_operators() -> None:
    """Import torchvision; where that fails for want of its operators, declare them and import it again.

    Raises:
        RuntimeError: torchvision cannot be imported for another reason.

    >>> declare_missing_operators()
    >>> import torchvision
    """
    try:
        import torchvision
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
        library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        for operator in ("nms", "qnms"):
            library.define(operator + _SIGNATURE)  # type: ignore[no-untyped-call]
        _declared.append(library)
        import torchvision  # noqa: F401
