"""SUV: right where it can be computed, refused where a number or a clock cannot be right."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pydicom
import pytest
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset

from flarekit import conventions
from flarekit.core.errors import InputError
from tests.conventions.dicom.dicom_files import (
    DOSE_BQ,
    WEIGHT_KG,
    pet_elements,
    put_raw,
    suv_per_bqml,
    tracer,
    write_series,
)


def suv(tmp_path, injected=None, **elements):
    """Return the SUV of 1000 Bq/ml, and the volume's warnings."""
    with disable_value_validation():
        if injected is not None:
            elements["RadiopharmaceuticalInformationSequence"] = tracer(**injected)
        write_series(tmp_path, np.full((3, 8, 10), 10000), "PT", **pet_elements(**elements))
    return suv_in(tmp_path)


def suv_in(folder):
    convention = conventions.get("dicom", {"modalities": ["PT"]}, labels={"lesion": 1})
    (case,) = convention.find_cases(folder, 1)
    (volume,) = convention.read_case(case)
    assert np.ptp(volume.voxels_ZYX) == 0
    return float(volume.voxels_ZYX.flat[0]) / 10, volume.warnings


def expected(minutes):
    return 1000 * suv_per_bqml(60.0 * minutes)


@pytest.mark.parametrize(
    ("start", "minutes"),
    [
        ({"RadiopharmaceuticalStartTime": "083000.5"}, 60),
        ({"RadiopharmaceuticalStartTime": "0830"}, 60 + 0.5 / 60),
        ({"RadiopharmaceuticalStartTime": "08:30:00.5"}, 60),
        ({"RadiopharmaceuticalStartDateTime": "20240105083000.500000"}, 60),
        ({"RadiopharmaceuticalStartDateTime": "20240105073000.5"}, 120),
        ({"RadiopharmaceuticalStartDateTime": "rubbish"}, 60),
        ({"RadiopharmaceuticalStartDateTime": ""}, 60),
        ({"RadiopharmaceuticalStartDateTime": "20249905083000"}, 60),
    ],
)
def test_the_injection_is_taken_from_what_states_it(tmp_path, start, minutes):
    value, _ = suv(tmp_path, start)
    assert value == pytest.approx(expected(minutes), rel=1e-5)


@pytest.mark.parametrize(
    ("scanner", "stated", "minutes"),
    [
        ("+0200", "20240105063000.5+0000", 60),
        ("+0200", "20240105083000.5+0200", 60),
        ("-0500", "20240105133000.5+0000", 60),
        ("+0530", "20240105030000.5+0000", 60),
        (None, "20240105063000.5+0000", 60),  # whole hours off the time of day: another zone
        (None, "20240105103000.5+0200", 60),
        (None, "20240105083000.5+0100", 60),
    ],
)
def test_time_zones_are_brought_to_the_scanner_s(tmp_path, scanner, stated, minutes):
    zone = {} if scanner is None else {"TimezoneOffsetFromUTC": scanner}
    value, _ = suv(tmp_path, {"RadiopharmaceuticalStartDateTime": stated}, **zone)
    assert value == pytest.approx(expected(minutes), rel=1e-5)


@pytest.mark.parametrize("zone", ["+9900", "0200", "+02", "noon"])
def test_a_time_zone_that_cannot_be_is_not_used(tmp_path, zone):
    value, _ = suv(
        tmp_path,
        {"RadiopharmaceuticalStartDateTime": "20240105083000.5+0100"},
        TimezoneOffsetFromUTC=zone,
    )
    assert value == pytest.approx(expected(60), rel=1e-5)


CLOCKS = {
    "one minute ahead": {"RadiopharmaceuticalStartTime": "093100"},
    "one hour ahead": {"RadiopharmaceuticalStartTime": "103000"},
    "half a day ahead": {"RadiopharmaceuticalStartTime": "203000"},
    "a date a day late": {"RadiopharmaceuticalStartDateTime": "20240106083000"},
    "a date a day early": {"RadiopharmaceuticalStartDateTime": "20240104083000"},
    "a date of another year": {"RadiopharmaceuticalStartDateTime": "20230105083000"},
    "a date of the first computers": {"RadiopharmaceuticalStartDateTime": "19000101000000"},
}


@pytest.mark.parametrize("name", CLOCKS)
def test_an_injection_that_cannot_be_is_refused_naming_element_and_times(tmp_path, name):
    with pytest.raises(InputError, match="SUV cannot be computed") as refusal:
        suv(tmp_path, CLOCKS[name])
    (element,) = CLOCKS[name]
    for words in (element, "half-lives", "2024-01-05 09:30:00", "clock"):
        assert words in refusal.value.message


@pytest.mark.parametrize(
    ("element", "value", "unit"),
    [
        ("RadionuclideTotalDose", 300, "Bq"),
        ("RadionuclideTotalDose", 0.3e6, "Bq"),
        ("RadionuclideTotalDose", 3e14, "Bq"),
        ("RadionuclideTotalDose", -3e8, "Bq"),
        ("RadionuclideHalfLife", 1.83, "s"),
        ("RadionuclideHalfLife", 6.6e7, "s"),
    ],
)
def test_a_tracer_that_cannot_be_is_refused_by_a_named_limit(tmp_path, element, value, unit):
    with pytest.raises(InputError, match=rf"{element} is .* {unit}; only .* to .* is plausible"):
        suv(tmp_path, {element: value})


@pytest.mark.parametrize("weight", [0, -70, 0.07, 70000])
def test_a_weight_that_cannot_be_is_refused_by_a_named_limit(tmp_path, weight):
    with pytest.raises(InputError, match=r"PatientWeight is .* kg; only 1 to 500 is plausible"):
        suv(tmp_path, PatientWeight=weight)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"72 kg", "'72 kg', no number"), (b"72\\72", "2 values"), (b"", "empty"), (b"nan", "'nan'")],
)
def test_a_weight_that_is_malformed_is_named(tmp_path, content, words):
    write_series(tmp_path, np.full((3, 8, 10), 10000), "PT", **pet_elements())
    for path in tmp_path.iterdir():
        put_raw(path, "PatientWeight", content)
    with pytest.raises(InputError, match=rf"PatientWeight \(0010,1030\) .*{words}"):
        suv_in(tmp_path)


def test_a_weight_with_a_decimal_comma_is_read(tmp_path):
    write_series(tmp_path, np.full((3, 8, 10), 10000), "PT", **pet_elements())
    for path in tmp_path.iterdir():
        put_raw(path, "PatientWeight", b"72,0")
    value, warnings = suv_in(tmp_path)
    assert value == pytest.approx(expected(60), rel=1e-5)


def coded(meaning):
    item = Dataset()
    item.CodeMeaning = meaning
    return pydicom.Sequence([item])


def test_a_half_life_is_checked_against_the_nuclide_and_taken_from_it(tmp_path):
    fluorine = {"RadionuclideCodeSequence": coded("^18^Fluorine")}
    value, _ = suv(tmp_path / "a", fluorine)
    assert value == pytest.approx(expected(60), rel=1e-5)
    value, warnings = suv(tmp_path / "b", {**fluorine, "RadionuclideHalfLife": None})
    assert value == pytest.approx(expected(60), rel=1e-5)
    assert any("RadionuclideHalfLife is missing" in each for each in warnings)
    with pytest.raises(InputError, match=r"RadionuclideHalfLife is 109.8 s, that of the nuclide"):
        suv(tmp_path / "c", {**fluorine, "RadionuclideHalfLife": 109.8})
    with pytest.raises(InputError, match="RadionuclideHalfLife .* is empty"):
        suv(tmp_path / "d", {"RadionuclideHalfLife": None})


def test_what_is_doubtful_is_warned_of(tmp_path):
    _, warnings = suv(tmp_path / "usual")
    assert warnings == ()
    _, warnings = suv(tmp_path / "early", {"RadiopharmaceuticalStartTime": "092800"})
    assert any("0:02:00.5" in each and "after the injection" in each for each in warnings)
    _, warnings = suv(tmp_path / "late", {"RadiopharmaceuticalStartTime": "020000"})
    assert any("4.1 half-lives" in each for each in warnings)
    _, warnings = suv(tmp_path / "odd", {"RadionuclideHalfLife": 5000})
    assert any("5000 s, is that of no usual nuclide" in each for each in warnings)


def test_a_long_lived_tracer_may_be_injected_days_before(tmp_path):
    zirconium = {
        "RadionuclideHalfLife": 282276.0,
        "RadiopharmaceuticalStartDateTime": "20240101093000.5",
    }
    value, _ = suv(tmp_path, zirconium)
    assert value == pytest.approx(
        1000 * WEIGHT_KG * 1000 / (DOSE_BQ * 2 ** (-4 * 86400 / 282276.0)), rel=1e-5
    )


def test_a_series_time_long_before_the_acquisition_is_not_believed(tmp_path):
    value, warnings = suv(tmp_path, SeriesTime="060000")
    assert value == pytest.approx(expected(60), rel=1e-5)
    assert any("SeriesTime lies 3:30:00.500000 before" in each for each in warnings)


@pytest.mark.parametrize("content", [b"noon", b"", b"999999", b"8c6f2f0e-90f1"])
def test_a_malformed_time_in_one_slice_is_done_without(tmp_path, content):
    write_series(tmp_path, np.full((3, 8, 10), 10000), "PT", **pet_elements())
    put_raw(next(tmp_path.iterdir()), "AcquisitionTime", content)
    value, _ = suv_in(tmp_path)
    assert value == pytest.approx(expected(60), rel=1e-5)


def test_no_injection_time_is_named(tmp_path):
    with pytest.raises(InputError, match="RadiopharmaceuticalStartTime is missing"):
        suv(tmp_path / "a", {"RadiopharmaceuticalStartTime": None})
    write_series(tmp_path / "b", np.full((3, 8, 10), 10000), "PT", **pet_elements())


def test_midnight_between_injection_and_scan_is_no_wrong_clock(tmp_path):
    value, warnings = suv(
        tmp_path,
        {"RadiopharmaceuticalStartTime": "233000"},
        SeriesTime="003000",
        AcquisitionTime="003000",
    )
    assert value == pytest.approx(expected(60), rel=1e-5)
    assert warnings == ()


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths stated", "no lengths"])
@pytest.mark.parametrize("syntax", ["implicit", "explicit", "big endian", "deflated"])
def test_the_tracer_is_read_however_its_sequence_is_written(tmp_path, syntax, undefined):
    uids = {
        "implicit": pydicom.uid.ImplicitVRLittleEndian,
        "explicit": pydicom.uid.ExplicitVRLittleEndian,
        "big endian": pydicom.uid.ExplicitVRBigEndian,
        "deflated": pydicom.uid.DeflatedExplicitVRLittleEndian,
    }
    half_life = {"RadionuclideHalfLife": None, "RadionuclideCodeSequence": coded("^18^Fluorine")}
    sequence = tracer(**half_life)
    elements = pet_elements(RadiopharmaceuticalInformationSequence=sequence)
    write_series(tmp_path, np.full((3, 8, 10), 10000), "PT", **elements)
    for path in tmp_path.iterdir():
        image = pydicom.dcmread(path)
        element = image["RadiopharmaceuticalInformationSequence"]
        inner = element.value[0]["RadionuclideCodeSequence"]
        for each in (element, inner):
            each.is_undefined_length = undefined
            each.value[0].is_undefined_length_sequence_item = undefined
        if syntax == "big endian":
            image.PixelData = np.frombuffer(image.PixelData, "<i2").astype(">i2").tobytes()
        image.file_meta.TransferSyntaxUID = uids[syntax]
        pydicom.dcmwrite(path, image, enforce_file_format=True)
    value, _ = suv_in(tmp_path)
    assert value == pytest.approx(expected(60), rel=1e-5)


@pytest.mark.parametrize("weight", [1, 500])
@pytest.mark.parametrize("dose", [1e6, 1e10])
def test_limits_themselves_are_allowed(tmp_path, weight, dose):
    value, _ = suv(tmp_path, {"RadionuclideTotalDose": dose}, PatientWeight=weight)
    grams, remaining = weight * 1000, dose * 2 ** (-3600 / 6586.2)
    assert value == pytest.approx(1000 * grams / remaining, rel=1e-5)


@pytest.mark.parametrize(
    ("half_lives", "refused", "warned"),
    [(0.0, False, True), (2.99, False, False), (3.01, False, True), (5.99, False, True)]
    + [(6.01, True, True), (-0.01, True, True)],
)
def test_uptake_is_limited_in_half_lives(tmp_path, half_lives, refused, warned):
    scan = datetime(2024, 1, 5, 9, 30, 0, 500000)
    start = scan - timedelta(seconds=half_lives * 6586.2)
    stated = {"RadiopharmaceuticalStartDateTime": f"{start:%Y%m%d%H%M%S.%f}"}
    stated["RadiopharmaceuticalStartTime"] = None
    if refused:
        with pytest.raises(InputError, match="half-lives"):
            suv(tmp_path, stated)
        return
    value, warnings = suv(tmp_path, stated)
    assert value == pytest.approx(1000 * suv_per_bqml(half_lives * 6586.2), rel=1e-5)
    assert bool(warnings) == warned


def marked(creator, element, value, *, group=0x7053, other=None):
    """Return what puts a private element of a maker into an image, behind another maker's."""

    def mark(image):
        if other is not None:
            image.private_block(group, "OF SOMEBODY ELSE", create=True).add_new(
                element, "DS", other
            )
        kind = "DT" if group == 0x0009 else "DS"
        image.private_block(group, creator, create=True).add_new(element, kind, value)

    return mark


def suv_marked(tmp_path, mark, **elements):
    write_series(tmp_path, np.full((3, 8, 10), 10000), "PT", **pet_elements(**elements))
    for path in tmp_path.iterdir():
        image = pydicom.dcmread(path)
        mark(image)
        image.save_as(path)
    return suv_in(tmp_path)


@pytest.mark.parametrize("other", [None, "9"])
def test_a_factor_of_philips_is_found_wherever_its_block_is(tmp_path, other):
    mark = marked("Philips PET Private Group", 0x00, "0.5", other=other)
    assert suv_marked(tmp_path, mark, Units="CNTS")[0] == pytest.approx(500)


def test_a_factor_of_another_maker_is_none(tmp_path):
    with pytest.raises(InputError, match="it is in counts"):
        suv_marked(tmp_path, marked("OTHER", 0x00, "0.5"), Units="CNTS")


@pytest.mark.parametrize("factor", ["-0.5", "1e-30", "1e30"])
@pytest.mark.parametrize("element", [0x00, 0x09])
def test_a_factor_that_cannot_be_is_refused_by_a_named_limit(tmp_path, factor, element):
    mark = marked("Philips PET Private Group", element, factor)
    with pytest.raises(InputError, match=r"\(7053,100[09]\) is .* per count; only"):
        suv_marked(tmp_path, mark, Units="CNTS")


def test_a_scan_start_of_another_maker_or_another_day_is_not_taken(tmp_path):
    changes = {"SeriesTime": "113000", "AcquisitionTime": "093000.5"}
    other = marked("OTHER", 0x0D, "20240105091000", group=0x0009)
    assert suv_marked(tmp_path / "a", other, **changes)[0] == pytest.approx(expected(60))
    late = marked("GEMS_PETD_01", 0x0D, "20240101093000", group=0x0009)
    value, warnings = suv_marked(tmp_path / "b", late, **changes)
    assert value == pytest.approx(expected(60))
    assert any("private scan start, 2024-01-01 09:30:00, is not" in each for each in warnings)


@pytest.mark.parametrize(
    "elements",
    [
        {"Units": ["BQML", "BQML", "CNTS"]},
        {"Units": ["GML", "BQML", "BQML"]},
        {"PatientWeight": [72.0, 72.0, 144.0]},
        {"DecayCorrection": ["START", "ADMIN", "START"]},
    ],
)
def test_slices_that_differ_in_what_holds_for_all_are_refused_by_name(tmp_path, elements):
    (element,) = elements
    with pytest.raises(InputError, match=rf"{element} is .*, and .* in IM000"):
        suv(tmp_path, **elements)


@pytest.mark.parametrize(
    "start",
    [
        {"RadiopharmaceuticalStartTime": "225800"},
        {"RadiopharmaceuticalStartDateTime": "20240105225800"},
    ],
)
def test_an_acquisition_past_midnight_under_one_date_is_put_in_order(tmp_path, start):
    times = ["235830", "000030", "000330"]
    value, warnings = suv(tmp_path, start, SeriesTime="235800", AcquisitionTime=times)
    assert value == pytest.approx(expected(60), rel=1e-5)
    assert any("passes midnight" in each for each in warnings)


def test_an_injection_without_a_date_of_a_tracer_that_lasts_for_days_is_told(tmp_path):
    _, warnings = suv(tmp_path, {"RadionuclideHalfLife": 282276.0})
    assert any("a time and no date" in each for each in warnings)


def test_a_time_zone_that_nothing_tells_the_scanner_s_from_is_told(tmp_path):
    start = {"RadiopharmaceuticalStartDateTime": "20240105073000.5+0000"}
    _, warnings = suv(tmp_path, {**start, "RadiopharmaceuticalStartTime": None})
    assert any("names a time zone" in each for each in warnings)


def test_units_in_small_letters_are_units(tmp_path):
    assert suv(tmp_path, Units="bqml")[0] == pytest.approx(expected(60), rel=1e-5)
