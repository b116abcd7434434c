"""The organisers' formulas once more, voxel by voxel and slowly, to compare with."""

from __future__ import annotations

import itertools
import math

import numpy as np
from scipy import ndimage
from surface_distance import lookup_tables


def dice(truth, predicted):
    return 2 * int((truth & predicted).sum()) / (int(truth.sum()) + int(predicted.sum()))


def surface(mask_XYZ, spacing):
    """Return positions in mm and areas of a mask's surface elements, one by one."""
    areas = lookup_tables.create_table_neighbour_code_to_surface_area([float(s) for s in spacing])
    padded = np.pad(mask_XYZ, 1).astype(int)
    points, sizes = [], []
    for corner in itertools.product(*(range(length - 1) for length in padded.shape)):
        code = 0
        for x, y, z in itertools.product((0, 1), repeat=3):
            bit = 128 >> (4 * x + 2 * y + z)
            code += bit * padded[corner[0] + x, corner[1] + y, corner[2] + z]
        if code not in (0, 255):
            points.append([place * step for place, step in zip(corner, spacing, strict=True)])
            sizes.append(areas[code])
    return np.array(points, float).reshape(-1, 3), np.array(sizes)


def nearest(points, others):
    return np.array([min(math.dist(one, other) for other in others) for one in points])


def surface_figures(truth_XYZ, predicted_XYZ, spacing, tolerance):
    """Return NSD, mean distance from the prediction, mean of both, and HD, by brute force."""
    true_points, true_areas = surface(truth_XYZ, spacing)
    points, areas = surface(predicted_XYZ, spacing)
    away, back = nearest(true_points, points), nearest(points, true_points)
    near = true_areas[away <= tolerance].sum() + areas[back <= tolerance].sum()
    return (
        near / (true_areas.sum() + areas.sum()),
        (back * areas).sum() / areas.sum(),
        ((back * areas).sum() + (away * true_areas).sum()) / (areas.sum() + true_areas.sum()),
        max(away.max(), back.max()),
    )


def flare(truth_XYZ, predicted_XYZ, spacing, tolerance, least, sliced):
    """Return FLARE's DSC and NSD of one organ, rounded."""
    if truth_XYZ.sum() == 0 or predicted_XYZ.sum() == 0:
        alike = float(truth_XYZ.sum() == predicted_XYZ.sum())
        return alike, alike
    if sliced:
        z = np.where(truth_XYZ)[2]
        truth_XYZ = truth_XYZ[:, :, z.min() : z.max()]
        predicted_XYZ = predicted_XYZ[:, :, z.min() : z.max()]
    score = dice(truth_XYZ, predicted_XYZ)
    if score < least or predicted_XYZ.sum() == 0:
        return round(score, 4), 0.0
    nsd = surface_figures(truth_XYZ, predicted_XYZ, spacing, tolerance)[0]
    return round(score, 4), round(float(nsd), 4)


def parts(mask):
    labelled, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 2))
    return [labelled == number for number in range(1, count + 1)]


def untouched(mask, other):
    """Return the voxels of components that share none with the other mask."""
    return sum(int(part.sum()) for part in parts(mask) if not (part & other).any())


def lesion_counts(truth, predicted, least_iou=0.1):
    """Return found, missed and spurious lesions, as autoPET V counts them."""
    true_parts, found_parts = parts(truth), parts(predicted)
    hits = [
        (i, j)
        for i, one in enumerate(true_parts)
        for j, other in enumerate(found_parts)
        if (one & other).any() and (one & other).sum() / (one | other).sum() >= least_iou
    ]
    found = len({i for i, _ in hits})
    return found, len(true_parts) - found, len(found_parts) - len({j for _, j in hits})


def diameters(mask_ZYX):
    """Return ULS23's long and short axis: every pair of points, one after the other."""
    longest, ends, border = 0.0, None, None
    for plane in mask_ZYX:
        if not plane.any():
            continue
        labelled, count = ndimage.label(plane)
        sizes = [(labelled == number).sum() for number in range(1, count + 1)]
        part = labelled == 1 + sizes.index(max(sizes))
        points = np.argwhere(part & ~ndimage.binary_erosion(part))
        for one, other in itertools.combinations(points, 2):
            length = np.linalg.norm(one - other)
            if length > longest:
                longest, ends, border = length, (one, other), points
    if ends is None:
        return 0.0, 0.0
    axis = ends[1] - ends[0]
    for degrees in range(1, 100):
        lengths = []
        for one, other in itertools.combinations(border, 2):
            line = other - one
            cosine = (axis @ line) / (np.linalg.norm(axis) * np.linalg.norm(line))
            if abs(np.degrees(np.arccos(np.clip(cosine, -1, 1))) - 90) < degrees:
                lengths.append(np.linalg.norm(line))
        if lengths:
            return float(longest), float(max(lengths))
    raise AssertionError("no line at all")
