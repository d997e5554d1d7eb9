"""Regressor and likelihood under one roof: what is fitted, averaged, saved and asked."""

from jaxtyping import Float
from torch import Tensor, nn

from pose3d.engine.config import RunConfig
from pose3d.geometry.skeleton import skeleton_by_name
from pose3d.model.flow import build_flow
from pose3d.model.likelihood import Likelihood
from pose3d.model.regressor import PoseDistribution, PoseRegressor


class Network(nn.Module):
    """What is fitted, averaged and saved, and answers images with distributions of joints.

    Args:
        config: Of the run; weights are drawn from torch's global generator.
        planar_joints: See Likelihood.
        load_pretrained: See PoseRegressor.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        planar_joints: tuple[int, ...] | None = None,
        load_pretrained: bool = True,
    ) -> None:
        super().__init__()
        skeleton = skeleton_by_name(config.data.skeleton)
        num_joints, self.root = skeleton.num_joints, skeleton.root
        self.regressor = PoseRegressor(config.model, num_joints, load_pretrained=load_pretrained)
        self.likelihood = Likelihood(
            config.likelihood,
            build_flow(config.flow),
            planar_joints=planar_joints,
            num_joints=num_joints,
            feature_dim=self.regressor.backbone.num_features,
        )

    def predict(self, images: Float[Tensor, "batch 3 height width"]) -> PoseDistribution:
        """Where the joints are, in the mode that the network is in.

        The regressor's answer, from which the likelihood makes the estimate that belongs to it: the
        same for all kinds but ``flow``, whose estimate went through the flow: the root's through
        the one over (u, v), since its depth is never trained.
        """
        pose = self.regressor(images)
        mean, spread = self.likelihood.estimate(
            pose.mean, pose.spread, feature=pose.feature, planar_joints=(self.root,)
        )
        return PoseDistribution.from_spread(mean, spread, pose.feature)
