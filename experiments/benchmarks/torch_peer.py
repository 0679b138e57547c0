# pyright: reportMissingImports=false
"""Times the same step and the same evaluation in PyTorch, with its own optimisations. Does not need sean_jax.

    python experiments/benchmarks/torch_peer.py --compile --channels_last --fused --precision=bfloat16
    python experiments/benchmarks/torch_peer.py --what=evaluation --compile --channels_last --batch=4

The step is one student pass over source and target together, one teacher pass, both losses, Adam with coupled weight
decay, and the teacher's EMA (all parameters at once). bfloat16 uses autocast. Without flags PyTorch runs eagerly, as in
the authors' code.
"""

import contextlib
import copy
import time
from typing import Any

import measure
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
MEAN = (122.67891434, 116.66876762, 104.00698793)
CONVOLUTIONS = [(64, 1), (64, 1), "pool", (128, 1), (128, 1), "pool", (256, 1), (256, 1), (256, 1), "pool"]
CONVOLUTIONS += [(512, 1)] * 3 + [(512, 2)] * 3 + [(1024, 4)] * 2
DILATIONS = {"paper": (6, 12, 18, 24), "reference": (6, 12)}
SETTINGS = {  # threshold, noise, noise on the source, mean of the consistency over kept positions
    "paper": {"threshold": 0.3, "noise": 25.5, "noisy_source": True, "kept": False},
    "reference": {"threshold": 0.3, "noise": 0.1, "noisy_source": False, "kept": True},
}


class Network(nn.Module):
    """Logits and attention at an eighth of the size, from RGB on the 0–255 scale, ``[b, 3, H, W]``."""

    def __init__(self, classes: int, preset: str):
        super().__init__()
        layers: list[Any] = []
        channels_in = 3
        for entry in CONVOLUTIONS:
            if entry == "pool":
                layers.append(nn.MaxPool2d(2))
                continue
            channels, dilation = entry
            conv = nn.Conv2d(channels_in, channels, 3, padding=dilation, dilation=dilation)
            nn.init.kaiming_normal_(conv.weight)
            layers += [conv, nn.ReLU(inplace=True)]
            channels_in = channels
        self.features = nn.Sequential(*layers)
        self.attention = nn.Conv2d(channels_in, 1, 1, bias=False)
        self.classifier = nn.ModuleList(
            nn.Conv2d(channels_in, classes, 3, padding=d, dilation=d) for d in DILATIONS[preset]
        )
        self.reference = preset == "reference"
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        for conv in [self.attention, *self.classifier]:  # calm heads, as from scratch
            nn.init.normal_(conv.weight, std=1e-4)

    def forward(self, images: Any) -> tuple[Any, Any]:
        features = self.features((images - self.mean).flip(1))
        # A 1x1 convolution commutes with pooling and interpolation: one channel instead of 1024.
        pooled = self.attention(features).float()
        if self.reference:
            pooled = F.avg_pool2d(pooled, 3, stride=2, padding=1, ceil_mode=True)
        else:
            pooled = F.avg_pool2d(pooled, 2, stride=2, ceil_mode=True)
        size = features.shape[2:]
        up = F.interpolate(pooled, size, mode="bilinear", align_corners=self.reference)
        attention = torch.sigmoid(up)
        attended = features * (1 + attention).to(features.dtype)
        logits: Any = sum(branch(attended) for branch in self.classifier)
        return logits.float(), attention[:, 0]


def losses(network: Any, teacher: Any, batch: dict[str, Any], settings: dict[str, Any], autocast: Any) -> Any:
    """Equation 6 on one batch: segmentation loss, and consistency loss inside the mask."""

    def noisy(images: Any) -> Any:
        return images + settings["noise"] * torch.randn_like(images)

    source, target = batch["source_image"].float(), batch["target_image"].float()
    source = noisy(source) if settings["noisy_source"] else source
    with torch.no_grad(), autocast():
        taught, attention = teacher(noisy(target))
    with autocast():
        logits, _ = network(torch.cat([source, noisy(target)]))
    labels = batch["source_label"].long()
    up = F.interpolate(logits[: len(source)], labels.shape[1:], mode="bilinear", align_corners=False)
    segmentation = F.cross_entropy(up, labels, ignore_index=255)
    mask = (attention > settings["threshold"]).float()
    distance = (F.softmax(logits[len(source) :], 1) - F.softmax(taught, 1)) ** 2
    total = (mask[:, None] * distance).sum()
    count = (mask.sum() * logits.shape[1]).clamp(min=1) if settings["kept"] else mask.numel()
    return segmentation + 0.3 * total / count


def make_step(case: Any) -> tuple[Any, Any]:
    """The step, and a function that waits for it."""
    autocast = autocast_of(case)
    student = build(case)
    teacher = copy.deepcopy(student)
    parameters, averages = list(student.parameters()), list(teacher.parameters())
    for p in averages:
        p.requires_grad_(False)
    optimizer = torch.optim.Adam(parameters, lr=1e-5, weight_decay=5e-5, fused=case.fused)
    loss_of: Any = torch.compile(losses, mode=case.mode or None) if case.compile else losses
    batch = on_device(measure.random_batch(case), case)

    def run() -> Any:
        loss = loss_of(student, teacher, batch, SETTINGS[case.preset], autocast)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(averages, parameters, 1 - 0.99)
        return loss.detach()

    return run, wait


def build(case: Any) -> Any:
    torch.manual_seed(0)
    layout = torch.channels_last if case.channels_last else torch.contiguous_format
    return Network(case.classes, case.preset).to(DEVICE, memory_format=layout)


def autocast_of(case: Any) -> Any:
    if case.precision != "bfloat16":
        return contextlib.nullcontext
    return lambda: torch.autocast(DEVICE.type, dtype=torch.bfloat16)


def on_device(batch: dict[str, np.ndarray], case: Any) -> dict[str, Any]:
    def move(x: np.ndarray) -> Any:
        tensor = torch.from_numpy(x).to(DEVICE)
        if x.ndim == 3:
            return tensor
        images = tensor.permute(0, 3, 1, 2)  # its memory is channels_last already
        return images if case.channels_last else images.contiguous()

    return {name: move(x) for name, x in batch.items()}


def wait(_: Any) -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def evaluate(case: Any) -> dict[str, float]:
    """Images/s with uint8 arrays in host memory; confusion matrix on the device, uploads not waited for."""
    network, autocast, classes = build(case).eval(), autocast_of(case), case.classes
    rng = np.random.default_rng(0)
    image = torch.from_numpy(rng.integers(0, 256, (case.batch, case.height, case.width, 3)).astype(np.uint8))
    size = (2 * case.height, 2 * case.width)
    label = torch.from_numpy(rng.integers(0, classes, (case.batch, *size)).astype(np.uint8))
    if DEVICE.type == "cuda":
        image, label = image.pin_memory(), label.pin_memory()

    def count(image: Any, label: Any) -> Any:
        with autocast():
            logits, _ = network(image.permute(0, 3, 1, 2).float())
        predicted = F.interpolate(logits, size, mode="bilinear", align_corners=False).argmax(1)
        cells = torch.where(label < classes, label.long() * classes + predicted, classes**2)
        return torch.bincount(cells.flatten(), minlength=classes**2 + 1)

    compiled: Any = torch.compile(count) if case.compile else count
    total = torch.zeros(classes**2 + 1, dtype=torch.long, device=DEVICE)

    def run() -> None:
        uploaded = image.to(DEVICE, non_blocking=True), label.to(DEVICE, non_blocking=True)
        total.add_(compiled(*uploaded))

    with torch.no_grad():
        for _ in range(case.warmup):
            run()
        wait(None)
        start = time.perf_counter()
        for _ in range(case.steps):
            run()
        wait(None)
        total.cpu()
        seconds = time.perf_counter() - start
    return {"images_per_s": case.steps * case.batch / seconds, "ms_per_batch": 1e3 * seconds / case.steps}


def main() -> None:
    flags = {"what": "step", "compile": False, "channels_last": False, "fused": False, "mode": ""}
    case = measure.parse(__doc__ or "", **flags)
    # cuDNN picks its kernels by timing, and float32 is TF32 or not as the case says.
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.allow_tf32 = case.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = case.precision == "tf32"
    if case.what == "evaluation":
        values = evaluate(case)
    else:
        run, waits = make_step(case)
        waits(run())
        values = {"s_to_first_step": measure.seconds_since_start()}
        values |= measure.steps_measured(run, waits, case)
        if DEVICE.type == "cuda":
            values["peak_gib_allocator"] = torch.cuda.max_memory_allocated() / 2**30
        else:
            values["peak_gib_process"] = measure.peak_rss_gib()
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu"
    measure.report(case, "train_step" if case.what == "step" else case.what, f"torch {torch.__version__}", name, values)


if __name__ == "__main__":
    main()
