"""Which density of the label: kind, base, form, bound, and how many points its integrals have."""

import math
from dataclasses import dataclass

from pose3d.model.base_density import BASES

KINDS = ("l1", "l2", "laplace", "gaussian", "flow", "flow_reparam", "rle")
KINDS_WITH_FLOW = ("flow", "flow_reparam", "rle")
FORMS = ("paper", "released")
BOUND = {"laplace": 10.0, "gaussian": 5.0}
"""Standard residual bound of the exact form; Q leaves under 5e-5 of its mass beyond it."""
BASE_OF_KIND = {
    "l1": "laplace",
    "l2": "gaussian",
    "laplace": "laplace",
    "gaussian": "gaussian",
    "flow": "gaussian",
    "flow_reparam": "gaussian",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class LikelihoodConfig:
    """Which density of the label, and how exactly it is normalised."""

    kind: str = "rle"
    """l1, l2 (constant scale), laplace, gaussian (predicted scale), flow (a flow maps the predicted
    normal to the label), flow_reparam (a flow is the residual's density), rle (Q times a flow)."""
    base: str = "laplace"
    """Q of rle: laplace or gaussian."""
    form: str = "paper"
    """rle only: paper is the normalised density, released what the published weights minimised."""
    residual_bound: float | None = None
    """Largest standardised residual, per axis, of full influence in training; null: none in the
    form released, which is then exactly the published loss, 5 where Q is Gaussian, else 10. l1 and
    l2, which predict no scale, have none."""
    num_normaliser_samples: int = 1024
    """Points for log s in training; half from the flow, half where residuals and Q lie."""
    num_evaluation_samples: int = 16384
    """Points for log s in evaluation mode."""
    num_context_samples: int = 128
    """The same in training for each context of a conditioned flow; 8 times as many else."""
    num_depth_nodes: int = 8
    """Nodes over the depth of a joint without depth label in training."""
    num_evaluation_depth_nodes: int = 32
    """The same in evaluation mode."""

    def __post_init__(self) -> None:
        for name, allowed in (("kind", KINDS), ("base", BASES), ("form", FORMS)):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"likelihood.{name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}"
                )
        if self.residual_bound is not None and not self.residual_bound > 0:
            raise ValueError(f"likelihood.residual_bound must be > 0, got {self.residual_bound}")
        if self.bound == math.inf and self.has_flow and not self.is_released:
            raise ValueError(
                "likelihood.residual_bound must be finite but for likelihood.form=released, "
                f"got {self.residual_bound}; null is the standard one"
            )
        for name in (
            *("num_normaliser_samples", "num_evaluation_samples", "num_context_samples"),
            *("num_depth_nodes", "num_evaluation_depth_nodes"),
        ):
            if getattr(self, name) < 4 or getattr(self, name) % 4:
                raise ValueError(
                    f"likelihood.{name} must be a positive multiple of 4, got {getattr(self, name)}"
                )

    @property
    def has_flow(self) -> bool:
        """Whether the density needs a flow."""
        return self.kind in KINDS_WITH_FLOW

    @property
    def is_released(self) -> bool:
        """Whether this is the released loss, which is no likelihood."""
        return self.kind == "rle" and self.form == "released"

    @property
    def is_normalised(self) -> bool:
        """Whether the density needs log s: rle in the form paper."""
        return self.kind == "rle" and self.form == "paper"

    @property
    def base_name(self) -> str:
        """Q: laplace or gaussian."""
        return self.base if self.kind == "rle" else BASE_OF_KIND[self.kind]

    @property
    def bound(self) -> float:
        """Largest standardised residual of full influence in training."""
        if self.residual_bound is not None:
            return self.residual_bound
        if self.is_released:
            return float("inf")
        # The density of flow_reparam may be as heavy in its tails as Laplace's, or more.
        return BOUND["laplace" if self.kind == "flow_reparam" else self.base_name]
