"""Measures the input pipeline: images/s and images per core-second by stage, and the disk space of each encoding.

    python experiments/benchmarks/input_pipeline.py --cityscapes_dir=FOLDER > table.md

Images are 1024×512, as prepared for training. A training step reads one source image with its label and one target
image, so an H100 with steps of 9 ms needs 111 steps per second, that is 222 images and 111 labels, from 16 cores.
--cityscapes_dir is the folder as downloaded; a few pairs are enough. Without it the bundled data set is used, whose
images are smoother than photographs and so smaller and faster to decode. Files come from the page cache: the speed of
the disk is not measured.

Cost: one to two minutes on two cores. Rates of single stages are the fastest of many repetitions, in CPU time of one
thread, so that other load matters little. Rates of whole engines depend on it: the table gives the best of three and
the load average.
"""

import argparse
import io
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sean_jax.data.catalogue import DATASETS
from sean_jax.data.concurrency import cpu_count
from sean_jax.data.dataset import label_map
from sean_jax.data.folders import resolve_source_dir
from sean_jax.data.pipeline import LOADERS, evaluation_examples, training_batches
from sean_jax.data.preparation.builder import prepare
from sean_jax.data.prepared import PreparedSet

HEIGHT, WIDTH = 512, 1024
STEPS_PER_SECOND, CORES = 111, 16
GTA5_IMAGES = 24_966


def best(action: Callable[..., Any], *arguments: Any, seconds: float = 0.5) -> float:
    """Core-seconds of this thread for the fastest of the calls that fit in the time."""
    fastest, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.thread_time()
        action(*arguments)
        fastest = min(fastest, time.thread_time() - start)
    return fastest


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    print(f"\n**{title}**\n")
    print(f"| {' | '.join(header)} |\n|{' --- |' * len(header)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def encoders() -> dict[str, Callable[[np.ndarray], bytes]]:
    def pillow(kind: str, **settings: Any) -> Callable[[np.ndarray], bytes]:
        def encode(pixels: np.ndarray) -> bytes:
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, kind, **settings)
            return buffer.getvalue()

        return encode

    return {
        "raw": lambda pixels: pixels.tobytes(),
        **{f"PNG, zlib level {level}": pillow("PNG", compress_level=level) for level in (0, 1, 3, 6, 9)},
        "WebP lossless, method 0": pillow("WEBP", lossless=True, quality=0, method=0),
        "WebP lossless, method 4": pillow("WEBP", lossless=True, quality=75, method=4),
        "TIFF, LZW": pillow("TIFF", compression="tiff_lzw"),
    }


def decoders(name: str, shape: tuple[int, ...]) -> dict[str, Callable[[bytes], np.ndarray]]:
    """Ways to turn an encoding back into pixels, by library."""
    from sean_jax.data.tf_engine import _tensorflow

    def by_pillow(encoded: bytes) -> np.ndarray:
        if name == "raw":
            return np.frombuffer(encoded, np.uint8).reshape(shape).copy()
        return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB" if len(shape) == 3 else "L"))

    tf = _tensorflow()
    found: dict[str, Callable[[bytes], np.ndarray]] = {"Pillow": by_pillow}
    if name.startswith("PNG"):
        found["TensorFlow"] = lambda encoded: tf.io.decode_png(encoded).numpy()
    elif name.startswith("WebP"):
        found["TensorFlow"] = lambda encoded: tf.io.decode_webp(encoded, channels=3).numpy()
    return found


def encodings(images: list[np.ndarray], labels: list[np.ndarray]) -> None:
    """One thread: size of each encoding, and the rate of decoding it."""
    rows = []
    for name, encode in encoders().items():
        times, sizes = {}, {}
        for what, arrays in (("image", images), ("label", labels)):
            stored = [encode(array) for array in arrays]
            sizes[what] = np.mean([len(one) for one in stored])
            times["write", what] = best(encode, arrays[0])
            for library, decode in decoders(name, arrays[0].shape).items():
                if library == "Pillow":
                    assert (decode(stored[0]) == arrays[0]).all(), f"{name} is not lossless"
                times[library, what] = np.mean([best(decode, one) for one in stored])
        row = [name, f"{sizes['image'] / 1e6:.2f}", f"{sizes['label'] / 1e3:.0f}"]
        row += [f"{GTA5_IMAGES * (sizes['image'] + sizes['label']) / 1e9:.0f}", f"{1e3 * times['write', 'image']:.0f}"]
        for library in ("Pillow", "TensorFlow"):
            if (library, "image") in times:
                step = 2 * times[library, "image"] + times[library, "label"]
                row += [f"{1 / times[library, 'image']:.0f}", f"{STEPS_PER_SECOND * step:.1f}"]
            else:
                row += ["–", "–"]
        rows.append(row)
    header = ["stored as", "MB/image", "kB/label", "GTA-5, GB", "ms to write an image"]
    header += ["Pillow: images/s, one core", f"cores for {STEPS_PER_SECOND} steps/s", "TensorFlow: images/s, one core"]
    table("Lossless encodings (decoding on one thread)", [*header, f"cores for {STEPS_PER_SECOND} steps/s"], rows)


def stages(prepared: PreparedSet, mapping: np.ndarray) -> None:
    """One thread: the stages that an image and its label pass through."""
    record = prepared.read(0)
    image, label = (np.asarray(Image.open(io.BytesIO(record[key]))) for key in ("image", "label"))  # type: ignore
    by_tensorflow = decoders("PNG", image.shape)["TensorFlow"]
    actions: dict[str, Callable[[], Any]] = {
        "read: an image and its label, by index": lambda: prepared.read(0),
        "decode an image, Pillow": lambda: np.asarray(Image.open(io.BytesIO(record["image"]))),
        "decode an image, TensorFlow": lambda: by_tensorflow(record["image"]),
        "decode a label, Pillow": lambda: np.asarray(Image.open(io.BytesIO(record["label"]))),  # type: ignore
        "decode a label, TensorFlow": lambda: by_tensorflow(record["label"]),  # type: ignore
        "convert: ids to classes": lambda: np.take(mapping, label),
        "convert: an image into its batch": lambda: np.stack([image]),
    }
    times = {name: best(action) for name, action in actions.items()}
    table(
        "Stages, as stored (one thread)",
        ["stage", "ms", "per second and core"],
        [[name, f"{1e3 * seconds:.2f}", f"{1 / seconds:.0f}"] for name, seconds in times.items()],
    )


def rate(batches: Iterator[Any], warm_up: int, count: int) -> tuple[float, float]:
    """Items per second and per core-second, after a warm-up."""
    for _ in range(warm_up):
        next(batches)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(count):
        next(batches)
    return count / (time.perf_counter() - wall), count / max(1e-9, time.process_time() - cpu)


def engines(source: PreparedSet, target: PreparedSet, scored: PreparedSet, mapping: np.ndarray, count: int) -> None:
    """All cores: batches of one, as training with one image per domain reads them, and full-size evaluation."""
    rows = []
    for loader in LOADERS:

        def steps(loader: str = loader) -> Iterator[Any]:
            common = {"batch_size": 1, "seed": 0, "start_step": 0, "stop_step": 10 * count, "loader": loader}
            return training_batches(source, mapping, target, **common)

        def examples(loader: str = loader) -> Iterator[Any]:
            indices = [i % len(scored) for i in range(10 * count)]
            return evaluation_examples(scored, mapping, loader=loader, indices=indices)

        for what, stream, images in (("training step", steps, 2), ("evaluation, full-size truth", examples, 1)):
            found = [rate(stream(), 2 * cpu_count(), count) for _ in range(3)]
            per_second, per_core = (float(np.max(values)) for values in zip(*found, strict=True))
            row = [loader, what, f"{per_second:.1f}", f"{images * per_second:.0f}", f"{images * per_core:.0f}"]
            rows.append([*row, f"{CORES * per_core:.0f}"])
    header = ["engine", "what", "a second", "images/s", "images per core-second", f"a second on {CORES} cores, so"]
    table(f"Whole engines, all {cpu_count()} cores", header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cityscapes_dir", help="folder with leftImg8bit/train and gtFine/train")
    parser.add_argument("--steps", type=int, default=48, help="measured steps for each engine")
    args = parser.parse_args()
    dataset = DATASETS["cityscapes" if args.cityscapes_dir else "minicity_camera"]
    with tempfile.TemporaryDirectory() as folder:
        root = resolve_source_dir(dataset, args.cityscapes_dir, folder, HEIGHT, WIDTH)
        common = {"split": "train", "source_dir": root, "data_dir": folder, "height": HEIGHT, "width": WIDTH}
        source, target, scored = (
            prepare(dataset, labels=labels, **common) for labels in ("resized", "none", "original")
        )
        records = [source.read(i) for i in range(min(2, len(source)))]
        images = [np.asarray(Image.open(io.BytesIO(record["image"]))) for record in records]
        labels = [np.asarray(Image.open(io.BytesIO(record["label"]))) for record in records]  # type: ignore
        mapping = label_map(dataset, dataset.label_space)
        print(f"Machine: {processor()}, {cpu_count()} cores used, load average {os.getloadavg()[0]:.1f} at the start;")
        print(f"Python {platform.python_version()}, Pillow {Image.__version__}; images of {dataset.name}.")
        encodings(images, labels)
        stages(source, mapping)
        engines(source, target, scored, mapping, args.steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20)
    print(f"\nPeak memory of the process: {peak:.1f} GB.")


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
