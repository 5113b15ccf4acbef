"""Plain, hardened, private, and both: four models a seed, trained and audited side by side.

::

    DIR/
        settings.json               what makes it this study and no other
        runs/CELL-seedK/            a run folder, or .CELL-seedK.partial, its unfinished training
        seedK/                      the audit of the four runs of a seed
        study.json, study.md        means over the seeds, and the effects
"""

from attnpriv.study.design import CELLS, Cell, Design
from attnpriv.study.effects import StudyResult
from attnpriv.study.running import WHOLE, run_study
from attnpriv.study.writing import effects_table, means_table

__all__ = [
    "CELLS",
    "WHOLE",
    "Cell",
    "Design",
    "StudyResult",
    "effects_table",
    "means_table",
    "run_study",
]
