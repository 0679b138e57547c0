"""The paper's results (Tables 1 to 4, IoU in percent, VGG-16), and notes for reading them."""

# The paper's short names of Cityscapes' classes, in the order of its tables.
CLASSES_19 = {
    "road": "road", "sidewalk": "sidewalk", "building": "building", "wall": "wall", "fence": "fence", "pole": "pole",
    "traffic light": "light", "traffic sign": "sign", "vegetation": "vegetation", "terrain": "terrain", "sky": "sky",
    "person": "person", "rider": "rider", "car": "car", "truck": "truck", "bus": "bus", "train": "train",
    "motorcycle": "motorcycle", "bicycle": "bicycle",
}  # fmt: skip
CLASSES_16 = {name: short for name, short in CLASSES_19.items() if name not in ("terrain", "truck", "train")}

# Row → IoU by class, then the mean; None where the paper has none.
TABLE_1: dict[str, list[float | None]] = {
    "NoAdapt": [6.4, 17.7, 29.7, 1.2, 0.0, 15.1, 0.0, 7.2, 30.3, 66.8, 51.1, 1.5, 47.3, 3.9, 0.1, 0.0, 17.4],
    "FCN Wld": [11.5, 19.6, 30.8, 4.4, 0.0, 20.3, 0.1, 11.7, 42.3, 68.7, 51.2, 3.8, 54.0, 3.2, 0.2, 0.6, 20.2],
    "CDA": [65.2, 26.1, 74.9, 0.1, 0.5, 10.7, 3.5, 3.0, 76.1, 70.6, 47.1, 8.2, 43.2, 20.7, 0.7, 13.1, 29.0],
    "CCA": [62.7, 25.6, 78.3, None, None, None, 1.2, 5.4, 81.3, 81.0, 37.4, 6.4, 63.5, 16.1, 1.2, 4.6, 35.7],
    "SEAN": [86.8, 39.2, 79.2, 2.7, 0.3, 29.3, 3.6, 14.7, 81.5, 78.7, 52.9, 11.4, 79.7, 18.5, 5.9, 15.2, 37.5],
}
TABLE_2: dict[str, list[float | None]] = {
    "NoAdapt": [
        31.9, 18.9, 47.7, 7.4, 3.1, 16.0, 10.4, 1.0, 76.5, 13.0, 58.9, 36.0, 1.0, 67.1, 9.5, 3.7, 0.0, 0.0, 0.0, 21.2,
    ],
    "FCN Wld": [
        70.4, 32.4, 62.1, 14.9, 5.4, 10.9, 14.2, 2.7, 79.2, 21.3, 64.6, 44.1, 4.2, 70.4, 8.0, 7.3, 0.0, 3.5, 0.0, 27.1,
    ],
    "CDA": [
        74.9, 22.0, 71.7, 6.0, 11.9, 8.4, 16.3, 11.1, 75.7, 13.3, 66.5, 38.0, 9.3, 55.2, 18.8, 18.9, 0.0, 16.8, 16.6,
        28.9,
    ],
    "MCD": [
        86.4, 8.5, 76.1, 18.6, 9.7, 14.9, 7.8, 0.6, 82.8, 32.7, 71.4, 25.2, 1.1, 76.3, 16.1, 17.1, 1.4, 0.2, 0.0, 28.8,
    ],
    "CyCADA": [
        83.5, 38.3, 76.4, 20.6, 16.5, 22.2, 26.2, 21.9, 80.4, 28.7, 65.7, 49.4, 4.2, 74.6, 16.0, 26.6, 2.0, 8.0, 0.0,
        34.8,
    ],
    "SEAN": [
        85.2, 19.8, 77.8, 25.0, 12.2, 28.7, 29.8, 13.6, 79.2, 25.9, 74.9, 54.1, 12.1, 82.7, 21.6, 10.4, 0.0, 19.9, 5.1,
        35.7,
    ],
}  # fmt: skip
# Row → the network of its paper, and where training started.
NETWORKS = {
    "NoAdapt": "dilated front end on VGG-16, from ImageNet (Hoffman et al., 2016)",
    "FCN Wld": "dilated front end on VGG-16, from its NoAdapt",
    "CDA": "FCN-8s on VGG-16, from a network trained on the source",
    "CCA": "dilated front end on VGG-16, from a network trained on the source",
    "MCD": "FCN-8s on VGG-16 with two heads, from ImageNet",
    "CyCADA": "FCN-8s on VGG-16, from ImageNet",
    "SEAN": "DeepLab-v2 on VGG-16 with attention, from ImageNet and PASCAL VOC",
}
# Row → the method here.
METHODS = {
    "NoAdapt": "source_only", "FCN Wld": "fcns_in_the_wild", "CDA": "cda", "CCA": "cca", "MCD": "mcd",
    "CyCADA": "cycada", "SEAN": "sean",
}  # fmt: skip
TABLE_3 = {0.1: 36.3, 0.3: 37.5, 1.0: 36.1, 3.0: 24.2, 10.0: 21.4}  # lambda → mean over 16 classes, from SYNTHIA
TABLE_4 = {0.0: 34.6, 0.1: 36.2, 0.3: 37.5, 0.5: 31.2, 0.7: 31.9}  # tau → likewise

_NOADAPT = (
    "The paper's NoAdapt rows are Hoffman's baseline of 2016, another network: not SEAN's without adaptation, which is "
    "`source_only` here"
)
CAVEATS_1 = (
    _NOADAPT + ".",
    "CCA's 35.7 is a mean over 13 classes: compare it with the column of 13.",
    "The paper's list of 16 classes names all 19; its table has these 16. Its text and caption disagree on SEAN's mean "
    "over 13 classes (47.7 and 43.6); the row itself gives 43.6.",
    "The authors' code adapts on the validation images and chooses its checkpoint by their labels; the README of that "
    "code expects 36 to 37.",
)
CAVEATS_2 = (
    _NOADAPT + " (a user of the authors' code reports 32.7 for that, and 35.6 for SEAN without attention).",
    "The CyCADA row is its variant that adapts pixels only.",
    "The authors' code adapts on the validation images and chooses its checkpoint by their labels; the README of that "
    "code expects 34 to 35.",
)
CAVEATS_SWEEPS = (
    "The paper does not say how its sweeps chose their checkpoint; the authors' code chooses it by validation labels.",
)
