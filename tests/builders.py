"""Methods and networks from settings by name, as tests want them: small, and in float32."""

from typing import Any

import shallow

from sean_jax.config import from_flat_settings
from sean_jax.data.label_spaces import LabelSpace
from sean_jax.experiment import Experiment
from sean_jax.methods import METHODS, Method
from sean_jax.models import DeepLab

# What keeps the networks of a method narrow.
NARROW = {"cyclegan": {"translator_width": 4, "translator_blocks": 1, "pool_size": 3}}
_NETWORK = {"input_convention", "initialization", "precision", "remat"}


def deeplab(num_classes: int = 4, **settings: Any) -> DeepLab:
    """A network from its own settings and those of :class:`DeepLab`, 1/32 wide unless ``width_multiplier`` is given."""
    own = {name: value for name, value in settings.items() if name not in _NETWORK}
    other = {name: value for name, value in settings.items() if name in _NETWORK}
    return DeepLab(settings=DeepLab.Settings(**{"width_multiplier": 1 / 32} | own), num_classes=num_classes, **other)


def label_space(num_classes: int = 4) -> LabelSpace:
    classes = tuple(f"class {i}" for i in range(num_classes))
    return LabelSpace("test", classes, tuple((i, i, i) for i in range(num_classes)), ((),) * num_classes)


def experiment(name: str, num_classes: int = 4, **settings: Any) -> Experiment:
    """A run's configuration without any data: settings by name over narrow float32 defaults."""
    defaults = {"width_multiplier": 1 / 32, "precision": "float32", "steps": 10, "batch_size": 4, "method": name}
    defaults |= {"height": 32, "width": 32, **NARROW.get(name, {})}
    values = defaults | {"initialization": "scratch", "input_convention": "bgr_mean"} | settings
    return Experiment(from_flat_settings(values), label_space(num_classes))


def method(name: str, num_classes: int = 4, *, attention: bool = True, **settings: Any) -> Method:
    """A method on the network of :mod:`shallow`, for tests of what the method does with any network."""
    network = shallow.Shallow(settings=shallow.ShallowSettings(attention=attention), num_classes=num_classes)
    return experiment(name, num_classes, **settings).method().replace(network=network)


def deeplab_method(name: str, num_classes: int = 4, **settings: Any) -> Method:
    """A method on a narrow DeepLab, for tests of how the two work together; see :func:`experiment`."""
    return experiment(name, num_classes, **settings).method()


def preset(name: str, method_name: str = "sean") -> dict[str, Any]:
    """What a preset changes in the method and the network."""
    return {**DeepLab.PRESETS.get(name, {}), **METHODS[method_name].PRESETS.get(name, {})}
