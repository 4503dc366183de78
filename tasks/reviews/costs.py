"""Seconds that people spend on each kind of answer: what budgets, queues and reports reckon with.

The first four are published figures for crowd workers (D. Papadopoulos et al., CVPR 2016 and ICCV 2017; H. Su, J. Deng
and L. Fei-Fei, AAAI workshops 2012), the others are assumptions; none was measured with Vouch.
"""

from typing import Final

VERIFY_S: Final = 1.6
"""To say whether one labelled box is right."""
CLICK_BOX_S: Final = 7.0
"""To draw a box by its four extreme points."""
DRAW_BOX_S: Final = 25.5
"""To draw a box in the usual way."""
CHECK_CLASS_S: Final = 7.8
"""To say of one image and one class whether all of its objects are labelled."""
FURTHER_CLASS_S: Final = 0.5
"""The same of each further class in the same pass: an image is looked through once, its objects held against a list."""
CHANGE_CLASS_S: Final = 3.0
"""To name the right class of a box."""


def labels_within(seconds: float) -> int:
    """How many labels can be verified in a time."""
    return int(seconds / VERIFY_S + 1e-9)


def image_check_s(classes: int) -> float:
    """Seconds to search one image for the objects of some classes, without drawing what is missing."""
    return CHECK_CLASS_S + FURTHER_CLASS_S * max(0, classes - 1)


def minutes_for(labels: int) -> int:
    """Whole minutes in which so many labels can be verified."""
    return max(1, -int(-labels * VERIFY_S // 60))
