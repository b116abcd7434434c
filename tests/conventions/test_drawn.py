"""Clicks and lines as channels: drawn as the network was trained with, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from scipy import ndimage

from flarekit.conventions._drawn import draw, encoding_of
from flarekit.core.channels import Drawn
from flarekit.core.errors import PredictorError
from flarekit.images.build import task_facts
from flarekit.segmentation.inputs import convention_of

SHAPE, SPACING = (9, 20, 24), (3.0, 1.5, 1.5)
PLACES = np.array([(4, 10, 12), (4, 10, 12), (0, 1, 2), (8, 19, 23)])
USUAL = Drawn(kind="gaussian", scale=3.0)


def marked():
    volume = np.zeros(SHAPE)
    volume[tuple(PLACES.T)] = 1
    return volume


def test_points_are_the_marked_voxels():
    np.testing.assert_array_equal(draw(PLACES, SHAPE, SPACING, Drawn(kind="point")), marked())


@pytest.mark.parametrize(("unit", "sigma"), [("voxels", (3, 3, 3)), ("mm", (1, 2, 2))])
def test_gaussians_are_scipy_s(unit, sigma):
    drawn = draw(PLACES, SHAPE, SPACING, Drawn(kind="gaussian", scale=3.0, unit=unit))
    np.testing.assert_allclose(drawn, ndimage.gaussian_filter(marked(), sigma), atol=1e-7)


@pytest.mark.parametrize(("unit", "steps"), [("voxels", (1, 1, 1)), ("mm", SPACING)])
def test_exponentials_fall_off_with_the_distance_to_the_nearest_mark(unit, steps):
    drawn = draw(PLACES, SHAPE, SPACING, Drawn(kind="exp", scale=2.0, unit=unit))
    far = ndimage.distance_transform_edt(marked() == 0, sampling=steps)
    np.testing.assert_allclose(drawn, np.exp(-far / 2.0), atol=1e-5)


def test_without_marks_nothing_is_drawn():
    for kind, scale in (("point", 0), ("gaussian", 2), ("exp", 2)):
        none = np.zeros((0, 3), np.int64)
        assert not draw(none, SHAPE, SPACING, Drawn(kind=kind, scale=scale)).any()


def test_an_encoding_has_a_scale_where_it_needs_one():
    for wrong in ({"kind": "exp"}, {"kind": "point", "scale": 2.0}, {"kind": "star", "scale": 1.0}):
        with pytest.raises(ValidationError):
            Drawn(**wrong)


def test_channels_decide_where_the_settings_say_nothing():
    exp = Drawn(kind="exp", scale=5.0)
    assert encoding_of(None, {}, USUAL) == USUAL
    assert encoding_of(None, {"tumor": exp, "background": exp}, USUAL) == exp
    assert encoding_of(exp, {"tumor": exp}, USUAL) == exp
    with pytest.raises(PredictorError, match="trained with exp, 5 voxels"):
        encoding_of(USUAL, {"tumor": exp}, USUAL)
    with pytest.raises(PredictorError, match="'background' was trained with"):
        encoding_of(None, {"tumor": exp, "background": USUAL}, USUAL)


@pytest.fixture
def clicked(make_toy):
    """Return facts of a predictor that sees clicks, trained with exp(-d / 5 voxels)."""

    def clicked(**settings):
        spec = make_toy(channels=4).spec
        drawn = Drawn(kind="exp", scale=5.0)
        names = ("CT", "PET", "tumor", "background")
        channels = [
            channel.model_copy(update={"name": name, "drawn": drawn if k > 1 else None})
            for k, (channel, name) in enumerate(zip(spec.channels, names, strict=True))
        ]
        labels = {"lesion": 1}
        own = {"edition": 5, "lesion": "lesion", **settings}
        return spec.model_copy(
            update={
                "channels": tuple(channels),
                "labels": labels,
                "convention": "autopet",
                "convention_settings": own,
            }
        )

    return clicked


def test_a_predictor_s_own_encoding_is_drawn_in_runs_and_in_images(clicked):
    spec = clicked()
    assert convention_of("autopet", spec).encoding == Drawn(kind="exp", scale=5.0)
    assert task_facts(spec, "autopet")["settings"]["drawn"]["tumor"]["kind"] == "exp"


@pytest.mark.parametrize(
    "settings",
    [{"click_sigma_voxels": 3.0}, {"clicks": {"kind": "exp", "scale": 5.0, "unit": "mm"}}],
)
def test_settings_that_do_not_fit_the_training_are_refused(clicked, settings):
    spec = clicked(**settings)
    with pytest.raises(PredictorError, match="was trained with exp, 5 voxels"):
        convention_of("autopet", spec)
    with pytest.raises(PredictorError, match="was trained with exp, 5 voxels"):
        task_facts(spec, "autopet")


def test_two_settings_for_one_thing_are_refused(clicked):
    with pytest.raises(PredictorError, match="both say"):
        convention_of(
            "autopet",
            clicked(clicks={"kind": "exp", "scale": 5.0}, click_sigma_voxels=2.0),
        )
