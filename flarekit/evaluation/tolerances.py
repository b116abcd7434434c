"""How far a surface may be off to count as right, by label; FLARE's, which papers use as well.

Source: the evaluation scripts of JunMa11/FLARE (FLARE22 to FLARE24).
"""

from __future__ import annotations

TOLERANCES_MM = {
    "liver": 5.0,
    "right_kidney": 3.0,
    "spleen": 3.0,
    "pancreas": 5.0,
    "aorta": 2.0,
    "inferior_vena_cava": 2.0,
    "right_adrenal_gland": 2.0,
    "left_adrenal_gland": 2.0,
    "gallbladder": 2.0,
    "esophagus": 3.0,
    "stomach": 5.0,
    "duodenum": 7.0,
    "left_kidney": 3.0,
    "lesion": 2.0,
}
