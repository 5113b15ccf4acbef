"""The integrated gradients that several measures of one audit read, each computed once.

Attribution, occlusion and faithfulness explain the predicted classes of partly the same documents,
and the report's examples are among them too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from attnpriv.audit.documents import Documents
from attnpriv.audit.tally import Arrays
from attnpriv.explain.gradients import Attribution, integrated_gradients
from attnpriv.modality import AttentionModel

Explained = Mapping[int, Attribution]
"""What is explained already, by document."""


class Gradients:
    """The integrated gradients of documents' predicted classes; each is computed when asked for.

    Args:
        model: in eval mode.
        documents: tokenised held-out records.
        targets: for each of them, the class whose logit is explained.
        steps: points on each path before it is refined.
        explained: what another process or an interrupted audit has computed with the same settings.
    """

    def __init__(
        self,
        model: AttentionModel,
        documents: Documents,
        targets: Sequence[int],
        steps: int,
        explained: Explained | None = None,
    ) -> None:
        self.model, self.documents, self.targets, self.steps = model, documents, targets, steps
        self._explained = dict(explained or {})

    def __getitem__(self, document: int) -> Attribution:
        if document not in self._explained:
            example = self.documents.embedded(self.model, document)
            target = torch.tensor([self.targets[document]])
            self._explained[document] = integrated_gradients(
                self.model, example, target, self.steps
            )
        return self._explained[document]

    def arrays(self, documents: Sequence[int], progress: Callable[[int, int], None]) -> Arrays:
        """The attributions of some documents as plain arrays, which ``explained`` reads."""
        found: Arrays = {}
        for done, document in enumerate(documents, start=1):
            for name, value in vars(self[document]).items():
                found[f"{document}.{name}"] = value.numpy()
            progress(done, len(documents))
        return found


def explained(arrays: Arrays) -> Explained:
    """What ``Gradients.arrays`` wrote."""
    parts: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for name, array in arrays.items():
        document, _, part = name.partition(".")
        parts[int(document)][part] = torch.from_numpy(array)
    return {document: Attribution(**own) for document, own in parts.items()}
