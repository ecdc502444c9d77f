"""Small pictures written to disk in the layouts in which the real data sets come."""

from __future__ import annotations

import csv
import hashlib
import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

Rows = Sequence[tuple[np.ndarray, int]]


def pictures(labels: Sequence[int], size: int = 8, channels: int = 3, seed: int = 0) -> list[tuple[np.ndarray, int]]:
    """One picture a label: noise around a grey that tells the label, and a bright corner, so that mirroring is seen."""
    draw = np.random.default_rng(seed)
    found = []
    for label in labels:
        pixels = draw.integers(0, 12, (size, size, channels), dtype=np.uint8) + np.uint8(20 * (label % 10))
        pixels[: size // 8, -(size // 4) :] = 250
        found.append((pixels if channels > 1 else pixels[..., 0], label))
    return found


def save(path: Path, pixels: np.ndarray, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **how)
    return path


def class_folders(folder: Path, rows: Rows, names: Sequence[str], suffix: str = ".png") -> Path:
    for number, (pixels, label) in enumerate(rows):
        save(folder / names[label] / f"{number:03d}{suffix}", pixels)
    return folder


def idx(path: Path, array: np.ndarray) -> None:
    """The format of MNIST: a magic number with the count of dimensions, sizes, bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = (0x0800 + array.ndim).to_bytes(4, "big") + b"".join(size.to_bytes(4, "big") for size in array.shape)
    path.write_bytes(head + array.astype(np.uint8).tobytes())


def mnist_like(root: Path, train: Rows, test: Rows, name: str = "MNIST", prefix: str = "") -> None:
    for part, file, rows in (("train", "train", train), ("test", "t10k", test)):
        stem = f"{prefix}{part}" if prefix else file
        idx(root / name / "raw" / f"{stem}-images-idx3-ubyte", np.stack([pixels for pixels, _ in rows]))
        idx(root / name / "raw" / f"{stem}-labels-idx1-ubyte", np.array([label for _, label in rows]))


def svhn(root: Path, train: Rows, test: Rows) -> None:
    from scipy.io import savemat

    root.mkdir(parents=True, exist_ok=True)
    for part, rows in (("train", train), ("test", test)):
        labels = np.array([[label or 10] for _, label in rows], dtype=np.uint8)  # a zero is called 10 there
        savemat(root / f"{part}_32x32.mat", {"X": np.stack([pixels for pixels, _ in rows], axis=-1), "y": labels})


def cifar(root: Path, train: Rows, test: Rows, names: Sequence[str], hundred: bool = False) -> None:
    folder = root / ("cifar-100-python" if hundred else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    files = {"train": train, "test": test} if hundred else {"test_batch": test}
    if not hundred:
        files |= {f"data_batch_{n + 1}": train[n::5] for n in range(5)}
    for name, rows in files.items():
        data = np.stack([pixels.transpose(2, 0, 1).reshape(-1) for pixels, _ in rows])
        key = "fine_labels" if hundred else "labels"
        (folder / name).write_bytes(pickle.dumps({"data": data, key: [label for _, label in rows]}))
    meta = {"fine_label_names" if hundred else "label_names": list(names)}
    (folder / ("meta" if hundred else "batches.meta")).write_bytes(pickle.dumps(meta))


def stl10(root: Path, train: Rows, test: Rows, names: Sequence[str]) -> None:
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    for part, rows in (("train", train), ("test", test), ("unlabeled", train[:1])):
        columns = np.stack([pixels.transpose(2, 1, 0) for pixels, _ in rows])
        (folder / f"{part}_X.bin").write_bytes(columns.astype(np.uint8).tobytes())
        (folder / f"{part}_y.bin").write_bytes(bytes(label + 1 for _, label in rows))
    (folder / "class_names.txt").write_text("\n".join(names))


def gtsrb(root: Path, train: Rows, test: Rows) -> None:
    folder = root / "gtsrb"
    class_folders(folder / "GTSRB" / "Training", train, [f"{n:05d}" for n in range(43)], ".ppm")
    with open(_parent(folder / "GT-final_test.csv"), "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["Filename", "Width", "Height", "ClassId"])
        for number, (pixels, label) in enumerate(test):
            save(folder / "GTSRB" / "Final_Test" / "Images" / f"{number:05d}.ppm", pixels)
            writer.writerow([f"{number:05d}.ppm", 8, 8, label])


def dtd(root: Path, parts: dict[str, Rows], names: Sequence[str]) -> None:
    folder = root / "dtd" / "dtd"
    for part, rows in parts.items():
        lines = []
        for number, (pixels, label) in enumerate(rows):
            path = f"{names[label]}/{part}_{number:03d}.jpg"
            save(folder / "images" / path, pixels)
            lines.append(path)
        _parent(folder / "labels" / f"{part}1.txt").write_text("\n".join(lines) + "\n")


def stanford_cars(root: Path, train: Rows, test: Rows, names: Sequence[str], folder: str = "stanford_cars") -> None:
    from scipy.io import savemat

    place = root / folder
    (place / "devkit").mkdir(parents=True)
    for part, file, rows in (("train", "devkit/cars_train_annos.mat", train), ("test", "cars_test_annos_withlabels.mat", test)):
        kind = [("class", np.uint8), ("fname", object)]
        annotations = np.array([(label + 1, f"{n:05d}.jpg") for n, (_, label) in enumerate(rows)], dtype=kind)
        savemat(place / file, {"annotations": annotations})
        for number, (pixels, _) in enumerate(rows):
            save(place / f"cars_{part}" / f"{number:05d}.jpg", pixels)
    savemat(place / "devkit" / "cars_meta.mat", {"class_names": np.array(names, dtype=object)})


def sun397(root: Path, rows: Rows, names: Sequence[str], partition: bool) -> None:
    folder = root / "SUN397"
    paths = []
    for number, (pixels, label) in enumerate(rows):
        path = f"/{names[label][0]}/{names[label]}/sun_{number:03d}.jpg"
        save(folder / path.lstrip("/"), pixels)
        paths.append(path)
    (folder / "ClassName.txt").write_text("".join(f"/{name[0]}/{name}\n" for name in names))
    if partition:
        (folder / "Training_01.txt").write_text("\n".join(paths[::2]))
        (folder / "Testing_01.txt").write_text("\n".join(paths[1::2]))


def pets(root: Path, train: Rows, test: Rows, names: Sequence[str]) -> None:
    folder = root / "oxford-iiit-pet"
    for part, rows in (("trainval", train), ("test", test)):
        lines = []
        for number, (pixels, label) in enumerate(rows):
            name = f"{names[label]}_{part}{number}".replace(" ", "_")
            save(folder / "images" / f"{name}.jpg", pixels)
            lines.append(f"{name} {label + 1} 1 1")
        _parent(folder / "annotations" / f"{part}.txt").write_text("\n".join(lines))


def flowers(root: Path, parts: dict[str, Rows]) -> None:
    from scipy.io import savemat

    folder, labels, places = root / "flowers-102", [], {}
    for part, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        places[key] = np.arange(len(labels) + 1, len(labels) + 1 + len(parts[part]))
        for pixels, label in parts[part]:
            labels.append(label + 1)
            save(folder / "jpg" / f"image_{len(labels):05d}.jpg", pixels)
    savemat(folder / "setid.mat", places)
    savemat(folder / "imagelabels.mat", {"labels": np.array(labels)})


def pcam(root: Path, parts: dict[str, Rows]) -> None:
    import h5py

    (root / "pcam").mkdir(parents=True)
    for part, rows in parts.items():
        stem = f"camelyonpatch_level_2_split_{'valid' if part == 'val' else part}"
        with h5py.File(root / "pcam" / f"{stem}_x.h5", "w") as file:
            file["x"] = np.stack([pixels for pixels, _ in rows])
        with h5py.File(root / "pcam" / f"{stem}_y.h5", "w") as file:
            file["y"] = np.array([label for _, label in rows]).reshape(-1, 1, 1, 1)


def fer2013(root: Path, train: Rows, test: Rows) -> None:
    """Grey pictures of 48 x 48 as numbers in a table."""
    with open(_parent(root / "fer2013" / "fer2013.csv"), "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for rows, usages in ((train, ["Training"]), (test, ["PublicTest", "PrivateTest"])):
            for number, (pixels, label) in enumerate(rows):
                writer.writerow([label, " ".join(map(str, pixels.reshape(-1))), usages[number % len(usages)]])


def food101(root: Path, train: Rows, test: Rows, names: Sequence[str]) -> None:
    folder = root / "food-101"
    for part, rows in (("train", train), ("test", test)):
        listed: dict[str, list[str]] = {name: [] for name in names}
        for number, (pixels, label) in enumerate(rows):
            path = f"{names[label]}/{part}{number}"
            save(folder / "images" / f"{path}.jpg", pixels)
            listed[names[label]].append(path)
        _parent(folder / "meta" / f"{part}.json").write_text(json.dumps(listed))


def sst2(root: Path, parts: dict[str, Rows]) -> None:
    for part, rows in parts.items():
        class_folders(root / "rendered-sst2" / ("valid" if part == "val" else part), rows, ["negative", "positive"])


def resisc45(root: Path, parts: dict[str, Rows], names: Sequence[str]) -> None:
    for part, rows in parts.items():
        lines = []
        for number, (pixels, label) in enumerate(rows):
            name = f"{names[label]}_{part}{number}.jpg"
            save(root / "resisc45" / "NWPU-RESISC45" / names[label] / name, pixels)
            lines.append(name)
        (root / "resisc45" / f"resisc45-{part}.txt").write_text("\n".join(lines) + "\n")


def hugging_face(folder: Path, parts: dict[str, Rows], names: Sequence[str] | None, as_bytes: bool = False) -> None:
    """``save_to_disk`` of the library itself: images as its Image feature with class names, or as bytes with numbers."""
    import io

    import datasets as hf

    made = {}
    for part, rows in parts.items():
        images = [Image.fromarray(pixels) for pixels, _ in rows]
        labels = [label for _, label in rows]
        if as_bytes:
            contents = []
            for image in images:
                image.save(buffer := io.BytesIO(), "PNG")
                contents.append(buffer.getvalue())
            made[part] = hf.Dataset.from_dict({"img_bytes": contents, "labels": labels})
        else:
            features = hf.Features({"image": hf.Image(), "label": hf.ClassLabel(names=list(names))})
            made[part] = hf.Dataset.from_dict({"image": images, "label": labels}, features=features)
    (made["all"] if set(made) == {"all"} else hf.DatasetDict(made)).save_to_disk(str(folder))


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def accept_checksums(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """torchvision knows the real files by their MD5: it is told those of the small ones below ``root``."""

    def digest(path: Path) -> str:
        return hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else ""

    def told(owner: Any, attribute: str, change: Callable[[Any], Any]) -> None:
        monkeypatch.setattr(owner, attribute, change(getattr(owner, attribute)))

    for owner in (datasets.CIFAR10, datasets.CIFAR100):
        base = root / owner.base_folder
        for attribute in ("train_list", "test_list"):
            told(owner, attribute, lambda old, base=base: [[name, digest(base / name)] for name, _ in old])
        told(owner, "meta", lambda old, base=base: {**old, "md5": digest(base / old["filename"])})
    for attribute in ("train_list", "test_list"):
        told(datasets.STL10, attribute, lambda old: [[name, digest(root / "stl10_binary" / name)] for name, _ in old])
    svhns = next((path.parent for path in root.rglob("test_32x32.mat")), root)
    told(datasets.SVHN, "split_list", lambda old: {p: [url, name, digest(svhns / name)] for p, (url, name, _) in old.items()})
    flowers, faces = (datasets.Flowers102, "_file_dict", "flowers-102"), (datasets.FER2013, "_RESOURCES", "fer2013")
    for owner, attribute, folder in (flowers, faces):
        base = root / folder
        told(owner, attribute, lambda old, base=base: {key: (name, digest(base / name)) for key, (name, _) in old.items()})
