"""What a conditioned flow depends on: an embedding of the joint, or a projection of the feature."""

from jaxtyping import Float
from torch import Tensor, nn

from pose3d.model.flow import FlowConfig


class FlowContext(nn.Module):
    """Contexts of a flow: none, one per joint, or one per image.

    Args:
        config: Of the flow.
        num_joints: Of the skeleton; needed where the flow depends on the joint.
        feature_dim: Length of the image feature; needed where the flow depends on it.

    Example:
        >>> contexts = FlowContext(FlowConfig(condition="joint", context_dim=4), num_joints=18)
        >>> contexts().shape
        torch.Size([18, 4])

    Raises:
        ValueError: If what the flow depends on was not given.
    """

    def __init__(
        self, config: FlowConfig, *, num_joints: int | None = None, feature_dim: int | None = None
    ) -> None:
        super().__init__()
        self.condition = config.condition
        self.num_joints, self.feature_dim = num_joints, feature_dim
        if self.condition == "joint":
            if num_joints is None:
                raise ValueError(
                    "flow.condition=joint needs the number of joints: pass num_joints=18 or the "
                    "like to Likelihood"
                )
            self.embedding = nn.Embedding(num_joints, config.context_dim)
        elif self.condition == "feature":
            if feature_dim is None:
                raise ValueError(
                    "flow.condition=feature needs the length of the image feature: pass "
                    "feature_dim=2048 or the like to Likelihood"
                )
            self.projection = nn.Linear(feature_dim, config.context_dim)

    def forward(
        self, feature: Float[Tensor, "batch features"] | None = None
    ) -> Float[Tensor, "groups context_dim"] | None:
        """Contexts of all joints or of all images; None where the flow depends on nothing.

        Args:
            feature: Of the images; looked at only where the flow depends on it.

        Raises:
            ValueError: If the flow depends on the feature and it is missing or of another length.
        """
        if self.condition == "joint":
            return self.embedding.weight
        if self.condition == "feature":
            if feature is None or feature.shape[-1] != self.feature_dim:
                got = "none" if feature is None else f"one of shape {tuple(feature.shape)}"
                raise ValueError(
                    f"flow.condition=feature needs feature=, of shape [batch {self.feature_dim}], "
                    f"got {got}; pass PoseDistribution.feature"
                )
            return self.projection(feature.to(self.projection.weight.dtype))
        return None

    def of_joints(
        self, groups: Float[Tensor, "groups context_dim"] | None, like: Float[Tensor, "b j 3"]
    ) -> Float[Tensor, "rows context_dim"] | None:
        """The context of every joint of every image, images after each other.

        Raises:
            ValueError: If there is another number of joints than the flow knows.
        """
        if groups is None:
            return None
        num_batch, num_joints, _ = like.shape
        if self.condition == "joint" and num_joints != self.num_joints:
            raise ValueError(
                f"the flow is conditioned on {self.num_joints} joints, got {num_joints}; build "
                f"Likelihood with num_joints={num_joints}"
            )
        groups = self.spread_over(groups)
        return groups.expand(num_batch, num_joints, -1).flatten(0, 1)

    def spread_over(self, of_groups: Tensor) -> Tensor:
        """Values of groups, [groups, ...], to a shape that broadcasts to [batch joints, ...]."""
        return of_groups.unsqueeze(1 if self.condition == "feature" else 0)
