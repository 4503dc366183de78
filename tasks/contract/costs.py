"""Seconds that people spend on each kind of answer: what budgets, queues and reports reckon with.

The first four are published figures for crowd workers (D. Papadopoulos et al., CVPR 2016 and ICCV 2017; H. Su, J. Deng
and L. Fei-Fei, AAAI workshops 2012), the last is an assumption; none was measured with Vouch.
"""

from typing import Final

VERIFY_SECONDS: Final = 1.6
"""To say whether one labelled box is right."""
BOX_SECONDS: Final = 7.0
"""To draw a box by its four extreme points."""
DRAW_SECONDS: Final = 25.5
"""To draw a box in the usual way."""
CHECK_SECONDS: Final = 7.8
"""To say of one image and one class whether all of its objects are labelled."""
CLASS_SECONDS: Final = 3.0
"""To name the right class of a box."""


def labels_within(seconds: float) -> int:
    """How many labels can be verified in a time."""
    return int(seconds / VERIFY_SECONDS + 1e-9)
