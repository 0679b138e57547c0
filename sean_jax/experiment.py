"""A run's resolved configuration and label space, and the network and method that they describe."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from sean_jax.config import Config, check_values, flatten, from_flat_settings
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.errors import UserError
from sean_jax.methods import METHODS, Method
from sean_jax.models import NETWORKS, Network


class Experiment(NamedTuple):
    """What a run computes."""

    config: Config
    label_space: LabelSpace

    def network(self) -> Network:
        """The network that the configuration describes."""
        config = self.config
        assert config.initialization is not None
        assert config.input_convention is not None
        return NETWORKS[config.architecture](
            settings=config.network_settings,
            num_classes=self.label_space.num_classes,
            input_convention=config.input_convention,
            initialization=config.initialization,
            precision=config.precision,
            remat=config.remat,
        )

    def method(self) -> Method:
        """The method that the configuration describes, on its network."""
        config = self.config
        return METHODS[config.method](
            settings=config.method_settings,
            optimizer=config.optimizer_settings,
            steps=config.steps,
            network=self.network(),
            image_size=(config.height, config.width),
            accumulate_steps=config.accumulate_steps,
        )

    def weights_metadata(self) -> dict[str, Any]:
        """What travels with the network's weights: how to use them, and where they are from."""
        config = self.config
        return {
            "format": "sean_jax",
            "version": 1,
            "architecture": {"name": config.architecture, **vars(config.network_settings)},
            "classes": self.label_space.to_dict(),
            "input_convention": config.input_convention,
            "height": config.height,
            "width": config.width,
            "method": config.method,
            "seed": config.seed,
            "selection": config.selection,
        }

    def to_json(self) -> dict[str, Any]:
        """The settings and the label space as they stand in ``config.json``."""
        return {"settings": self.config.nested(), "label_space": self.label_space.to_dict()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Experiment":
        """The inverse of :meth:`to_json`; raises ValueError, KeyError, TypeError or UserError for anything else."""
        config = checked(flatten(content["settings"]))
        for name in ("steps", "initialization", "input_convention"):  # decided before a run starts
            if getattr(config, name) is None:
                raise ValueError(f"no {name}")
        return cls(config, LabelSpace.from_dict(content["label_space"]))


def checked(settings: Mapping[str, Any]) -> Config:
    """The configuration that a file holds; raises ValueError for what no command would have written there."""
    try:
        return check_values(from_flat_settings(settings))
    except UserError as error:
        raise ValueError(str(error)) from None
